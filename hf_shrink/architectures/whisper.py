"""Whisper: an audio encoder and a text decoder."""

from dataclasses import replace

from hf_shrink.architectures.description import Architecture, Attention, FeedForward, LayerStack


def _attention(path: str) -> Attention:
    return Attention(
        query=f"{path}.q_proj",
        key=f"{path}.k_proj",
        value=f"{path}.v_proj",
        output=f"{path}.out_proj",
        head_counts={f"{path}.num_heads": "heads"},
    )


ENCODER = LayerStack(
    name="encoder",
    path="encoder.layers",
    depth_fields=("encoder_layers", "num_hidden_layers"),  # transformers 4 keeps both, and reads both
    heads_field="encoder_attention_heads",
    ffn_field="encoder_ffn_dim",
    attention=_attention("self_attn"),
    feed_forward=FeedForward(up="fc1", down="fc2"),
    layer_vectors=("layer_weights",),  # of the audio classifier with use_weighted_layer_sum
)
DECODER = replace(
    ENCODER,
    name="decoder",
    path="decoder.layers",
    depth_fields=("decoder_layers",),
    heads_field="decoder_attention_heads",
    ffn_field="decoder_ffn_dim",
    cross_attention=_attention("encoder_attn"),
    layer_index=("self_attn", "encoder_attn"),
    layer_vectors=(),
    generation_lists=("alignment_heads",),  # word timestamps read their attention
)

WHISPER = Architecture(
    model_types=("whisper",),
    stacks=(ENCODER, DECODER),
    hidden_field="d_model",
    cuts=frozenset({"layers", "ffn", "vocabulary"}),
    vocabulary_field="vocab_size",
    positions_field="max_target_positions",
    token_embeddings="decoder.embed_tokens",
    position_embeddings="decoder.embed_positions",
    output_embeddings=("proj_out",),
    output_layers=("proj_out", "classifier"),
    frozen=("encoder.embed_positions",),
)
