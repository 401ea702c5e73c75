"""The shape in which a model family is described.

Paths are dotted and start where the field says: at the layer, at the base model (`BertModel` within
`BertForMaskedLM`), or at the whole model with its head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

Cut = Literal["layers", "ffn", "vocabulary", "heads"]


@dataclass(frozen=True)
class Attention:
    """Projections of one attention block, as paths from the layer.

    Args:
        query: Projection of the queries.
        key: Projection of the keys.
        value: Projection of the values.
        output: Projection of the joined heads.
        fused: Whether query, key and value name one module that holds the three side by side.
        plain_when: Config fields with the values under which the scores are the products of queries and keys over the
            root of the head size: no rotary or relative positions, no norm, no other scale. A field that the config
            lacks counts as met; None says that they never are, or that it is not known.
        head_counts: Paths of the numbers that modules keep of the query heads: how many there are, or how wide they
            are together. None says that it is not known which.
    """

    query: str
    key: str
    value: str
    output: str
    fused: bool = False
    plain_when: Mapping[str, Any] | None = None
    head_counts: Mapping[str, Literal["heads", "width"]] | None = None


@dataclass(frozen=True)
class FeedForward:
    """Projections of one feed-forward block, as paths from the layer.

    Args:
        up: Projection to the inner width.
        down: Projection back.
        gate: The second projection to the inner width, which goes through the activation, in gated blocks.
    """

    up: str
    down: str
    gate: str | None = None


@dataclass(frozen=True)
class FirstLayerModule:
    """A module that a stack's first layer holds for all of its layers.

    Args:
        path: From the layer.
        flag: Attribute of the module around it which says that it is there.
    """

    path: str
    flag: str


@dataclass(frozen=True)
class LayerStack:
    """A list of like layers.

    Args:
        name: What the stack is.
        path: Of the `ModuleList`, from the base model; a model without this stack lacks the path.
        depth_fields: Config fields that hold the number of layers, the leading one first.
        heads_field: Config field that holds the number of query heads.
        ffn_field: Config field that holds the inner width of the feed-forward block.
        attention: The self-attention.
        feed_forward: The feed-forward block.
        cross_attention: The attention to the encoder.
        key_value_heads_field: Config field that holds the number of key and value heads, where several queries may
            share one.
        head_dim_field: Config field that sets the size of a head; without one it is the hidden width over the heads.
        layer_index: Paths from the layer of the modules that know its index as `layer_idx` (where they exist).
        layer_lists: Config lists with one entry a layer.
        layer_counts: Config numbers that count layers from the first one on.
        layer_vectors: Parameters with one entry for the embeddings and one a layer, from the whole model; some heads
            have them.
        generation_lists: Lists of (layer, head) in the generation config.
        first_layer_modules: What only the first layer holds. Their last axis counts heads, so that all layers of the
            stack must keep the same heads.
        copied_config: Path from the base model of a module with its own copy of the config, and the field that holds
            this stack's depth there.
        on_move: Called with a copied layer, its old index and its new one, where more than `layer_idx` follows them.
    """

    name: Literal["encoder", "decoder"]
    path: str
    depth_fields: tuple[str, ...]
    heads_field: str
    ffn_field: str
    attention: Attention
    feed_forward: FeedForward
    cross_attention: Attention | None = None
    key_value_heads_field: str | None = None
    head_dim_field: str | None = None
    layer_index: tuple[str, ...] = ()
    layer_lists: tuple[str, ...] = ()
    layer_counts: tuple[str, ...] = ()
    layer_vectors: tuple[str, ...] = ()
    generation_lists: tuple[str, ...] = ()
    first_layer_modules: tuple[FirstLayerModule, ...] = ()
    copied_config: tuple[str, str] | None = None
    on_move: Callable[[nn.Module, int, int], None] | None = None


@dataclass(frozen=True)
class Architecture:
    """A model family.

    Args:
        model_types: The `config.model_type` values it goes by.
        stacks: Its layers; encoder before decoder.
        hidden_field: Config field that holds the hidden width.
        cuts: What can become smaller, uniformly over the layers, in a model that stock `from_pretrained` still loads.
        vocabulary_field: Config field that holds the number of tokens.
        positions_field: Config field that holds the number of learned positions.
        token_embeddings: Path from the base model.
        embedding_aliases: Paths from the base model of modules tied to the token embeddings.
        position_embeddings: Path from the base model of learned positions, one row each.
        output_embeddings: Paths from the whole model of the heads that `tie_word_embeddings` ties to the token
            embeddings.
        vocabulary_biases: Paths from the whole model of biases with one entry a token.
        output_layers: Paths from the whole model of the layers whose outputs are the logits of its heads; quantized
            or pruned they cost the most.
        frozen: Paths from the base model of modules that never train.
        transposed_weights: Whether the layers' weights are stored as (in, out), as `Conv1D` does.
        heads_divide_hidden: Whether the config refuses a number of heads that does not divide the hidden width, even
            with an explicit head size.
        when: Config fields with the values that tell this architecture from others with the same model type.
    """

    model_types: tuple[str, ...]
    stacks: tuple[LayerStack, ...]
    hidden_field: str
    cuts: frozenset[Cut]
    vocabulary_field: str | None = None
    positions_field: str | None = None
    token_embeddings: str | None = None
    embedding_aliases: tuple[str, ...] = ()
    position_embeddings: str | None = None
    output_embeddings: tuple[str, ...] = ()
    vocabulary_biases: tuple[str, ...] = ()
    output_layers: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    transposed_weights: bool = False
    heads_divide_hidden: bool = False
    when: Mapping[str, Any] = field(default_factory=dict)
