"""Llama and its like: decoders with rotary positions, gated feed-forward blocks and an explicit head size.

Heads go in whole groups: one key and value head with all the query heads that share it.
"""

from dataclasses import replace

from hf_shrink.architectures.description import Architecture, Attention, FeedForward, LayerStack

DECODER = LayerStack(
    name="decoder",
    path="layers",
    depth_fields=("num_hidden_layers",),
    heads_field="num_attention_heads",
    ffn_field="intermediate_size",
    attention=Attention(
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        output="self_attn.o_proj",
        head_counts={},  # only the number of queries that share a key, which stays
    ),
    feed_forward=FeedForward(up="mlp.up_proj", gate="mlp.gate_proj", down="mlp.down_proj"),
    key_value_heads_field="num_key_value_heads",
    head_dim_field="head_dim",
    layer_index=("self_attn",),
)

MISTRAL = Architecture(
    model_types=("mistral",),
    stacks=(DECODER,),
    hidden_field="hidden_size",
    cuts=frozenset({"layers", "ffn", "vocabulary", "heads"}),
    vocabulary_field="vocab_size",
    token_embeddings="embed_tokens",
    output_embeddings=("lm_head",),
    output_layers=("lm_head", "score", "qa_outputs"),
)
LLAMA = replace(MISTRAL, model_types=("llama",), heads_divide_hidden=True)
GEMMA = replace(MISTRAL, model_types=("gemma",))
QWEN2 = replace(
    MISTRAL,
    model_types=("qwen2", "qwen3"),
    # Where windows slide, the first `max_window_layers` layers are those that still see everything.
    stacks=(replace(DECODER, layer_lists=("layer_types",), layer_counts=("max_window_layers",)),),
)
GEMMA2 = replace(
    MISTRAL,
    model_types=("gemma2",),
    stacks=(replace(DECODER, layer_lists=("layer_types",)),),
    heads_divide_hidden=True,
)
GEMMA3 = replace(
    MISTRAL,
    model_types=("gemma3_text",),
    stacks=(replace(DECODER, layer_lists=("layer_types",), layer_index=("", "self_attn")),),
    heads_divide_hidden=True,
)
