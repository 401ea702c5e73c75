"""T5 and its gated form (v1.1, Flan): encoder and decoder whose first layers hold the relative positions of all."""

from dataclasses import replace

from hf_shrink.architectures.description import Architecture, Attention, FeedForward, FirstLayerModule, LayerStack


def _attention(path: str) -> Attention:
    return Attention(
        query=f"{path}.q",
        key=f"{path}.k",
        value=f"{path}.v",
        output=f"{path}.o",
        head_counts={f"{path}.n_heads": "heads", f"{path}.inner_dim": "width"},
    )


ENCODER = LayerStack(
    name="encoder",
    path="encoder.block",
    depth_fields=("num_layers",),
    heads_field="num_heads",
    ffn_field="d_ff",
    attention=_attention("layer.0.SelfAttention"),
    feed_forward=FeedForward(up="layer.1.DenseReluDense.wi", down="layer.1.DenseReluDense.wo"),
    head_dim_field="d_kv",
    layer_index=("layer.0.SelfAttention",),
    first_layer_modules=(
        FirstLayerModule("layer.0.SelfAttention.relative_attention_bias", "has_relative_attention_bias"),
    ),
    copied_config=("encoder", "num_layers"),
)
DECODER = replace(
    ENCODER,
    name="decoder",
    path="decoder.block",
    depth_fields=("num_decoder_layers",),
    cross_attention=_attention("layer.1.EncDecAttention"),
    feed_forward=FeedForward(up="layer.2.DenseReluDense.wi", down="layer.2.DenseReluDense.wo"),
    layer_index=("layer.0.SelfAttention", "layer.1.EncDecAttention"),
    copied_config=("decoder", "num_layers"),
)


def _gated(stack: LayerStack) -> LayerStack:
    block = stack.feed_forward
    return replace(stack, feed_forward=replace(block, gate=f"{block.up}_0", up=f"{block.up}_1"))


T5 = Architecture(
    model_types=("t5",),
    stacks=(ENCODER, DECODER),
    hidden_field="d_model",
    cuts=frozenset({"layers", "ffn", "vocabulary", "heads"}),
    vocabulary_field="vocab_size",
    token_embeddings="shared",
    embedding_aliases=("encoder.embed_tokens", "decoder.embed_tokens"),
    output_embeddings=("lm_head",),
    output_layers=("lm_head", "classification_head.out_proj", "classifier", "qa_outputs"),
    when={"is_gated_act": False},
)
GATED_T5 = replace(T5, stacks=(_gated(ENCODER), _gated(DECODER)), when={"is_gated_act": True})
