"""GPT-2: a decoder with fused q, k and v, and weights stored as (in, out)."""

import torch
from torch import nn

from hf_shrink.architectures.description import Architecture, Attention, FeedForward, LayerStack
from hf_shrink.versions import refresh_attention_scale


def keep_attention_scale(layer: nn.Module, old: int, new: int) -> None:
    """Let a moved layer attend as before where the config divides its scores by its index.

    Without it a layer that moves from 11 to 1 would attend six times as sharply, and nothing would say so.

    Args:
        layer: A block whose `layer_idx` is the new one already.
        old: Its index in the teacher.
        new: Its index now.
    """
    for name, attention in layer.named_children():
        if name not in ("attn", "crossattention") or not attention.scale_attn_by_inverse_layer_idx:
            continue
        queries = attention.get_submodule("q_attn" if attention.is_cross_attention else "c_attn")
        with torch.no_grad():
            for parameter in queries.parameters():  # (D, 3 * D) and (3 * D,), the queries first
                parameter[..., : attention.split_size].mul_((new + 1) / (old + 1))
        refresh_attention_scale(attention)


GPT2 = Architecture(
    model_types=("gpt2",),
    stacks=(
        LayerStack(
            name="decoder",
            path="h",
            depth_fields=("n_layer",),
            heads_field="n_head",
            ffn_field="n_inner",  # None stands for four times the hidden width
            attention=Attention(
                query="attn.c_attn",
                key="attn.c_attn",
                value="attn.c_attn",
                output="attn.c_proj",
                fused=True,
                plain_when={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
                head_counts={"attn.num_heads": "heads", "attn.split_size": "width"},
            ),
            feed_forward=FeedForward(up="mlp.c_fc", down="mlp.c_proj"),
            layer_index=("attn", "crossattention"),  # the second only where add_cross_attention is set
            on_move=keep_attention_scale,
        ),
    ),
    hidden_field="n_embd",
    cuts=frozenset({"layers", "ffn", "vocabulary"}),
    vocabulary_field="vocab_size",
    positions_field="n_positions",
    token_embeddings="wte",
    position_embeddings="wpe",
    output_embeddings=("lm_head",),
    output_layers=("lm_head", "score", "classifier", "qa_outputs"),
    transposed_weights=True,
)
