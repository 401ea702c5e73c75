"""The only file that branches on the version of a library; each branch says which version lets it go."""

from typing import Any, Literal, NamedTuple

import huggingface_hub
import transformers
from torch import nn


def network_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where no answer came.

    Returns:
        Classes for `except`.
    """
    line = int(huggingface_hub.__version__.split(".")[0])
    if line < 1:  # goes when transformers 4 does, which pins huggingface_hub below 1
        from requests.exceptions import ConnectionError as RequestsConnectionError
        from requests.exceptions import Timeout

        return ConnectionError, RequestsConnectionError, Timeout
    if line < 2:  # goes when huggingface_hub 2 is the oldest allowed
        from httpx import TransportError
    else:
        from httpx2 import TransportError
    return ConnectionError, TransportError


def length_grouping() -> dict[str, Any]:
    """The training argument that puts rows of about the same length into a batch.

    Returns:
        Keyword arguments for `TrainingArguments`.
    """
    if int(transformers.__version__.split(".")[0]) < 5:  # goes when transformers 4 does
        return {"group_by_length": True}
    return {"train_sampling_strategy": "group_by_length"}


def base_model(model: Any) -> nn.Module:
    """The model beneath a head.

    Args:
        model: A transformers model.

    Returns:
        What its `base_model` is meant to be.
    """
    if type(model).__name__ == "Gemma3ForCausalLM" and model.base_model is model:  # goes when transformers 4 does
        return model.model
    return model.base_model


def refresh_attention_scale(attention: Any) -> None:
    """Let GPT-2's attention scale follow its `layer_idx`, where transformers 5 works it out only in `__init__`.

    Args:
        attention: A GPT-2 attention module with `scale_attn_by_inverse_layer_idx`.
    """
    if "scaling" in vars(attention):  # the branch, not its body, goes when transformers 4 does
        scale = attention.head_dim**-0.5 if attention.scale_attn_weights else 1.0
        attention.scaling = scale / float(attention.layer_idx + 1)


class VitNames(NamedTuple):
    """Paths of ViT's parts: of the layers from the base model, of the rest from the layer."""

    layers: str
    query: str
    key: str
    value: str
    output: str
    up: str
    down: str
    head_dim_field: str | None
    head_counts: dict[str, Literal["heads", "width"]]


VIT_4 = VitNames(
    layers="encoder.layer",
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    head_dim_field=None,
    head_counts={"attention.attention.num_attention_heads": "heads", "attention.attention.all_head_size": "width"},
)
VIT_5 = VitNames(  # in memory: checkpoints bear the names of 4
    layers="layers",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    output="attention.o_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    head_dim_field="head_dim",
    head_counts={"attention.num_attention_heads": "heads"},
)


def vit_names() -> VitNames:
    """What ViT's modules are called, and whether its config can set the head size.

    Returns:
        The names of the installed transformers.
    """
    from transformers.models.vit import modeling_vit

    return VIT_4 if "ViTEncoder" in vars(modeling_vit) else VIT_5  # goes when transformers 4 does
