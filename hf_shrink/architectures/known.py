"""The model families that are known, and what is said of one that is not."""

from typing import Any

from transformers import PretrainedConfig

from hf_shrink.architectures.bert import BERT, DISTILBERT, ROBERTA
from hf_shrink.architectures.description import Architecture
from hf_shrink.architectures.gpt2 import GPT2
from hf_shrink.architectures.llama import GEMMA, GEMMA2, GEMMA3, LLAMA, MISTRAL, QWEN2
from hf_shrink.architectures.t5 import GATED_T5, T5
from hf_shrink.architectures.vit import VIT
from hf_shrink.architectures.whisper import WHISPER
from hf_shrink.errors import ShrinkError

_KNOWN = [BERT, ROBERTA, DISTILBERT, VIT, GPT2, LLAMA, MISTRAL, QWEN2, GEMMA, GEMMA2, GEMMA3, T5, GATED_T5, WHISPER]


def register_architecture(architecture: Architecture) -> None:
    """Make a model family known.

    Args:
        architecture: Its description; it goes before what was known of the same model types.

    Raises:
        ShrinkError: If it is no description, or describes no model type or no layers.
    """
    if not isinstance(architecture, Architecture):
        raise ShrinkError(
            f"`architecture` must be an Architecture, got {type(architecture).__name__}. "
            "Fill in hf_shrink.architectures.Architecture(…)."
        )
    if not architecture.model_types or not architecture.stacks:
        raise ShrinkError(
            f"`architecture` must name its model types and its stacks, got {architecture.model_types} and "
            f"{len(architecture.stacks)} stacks. Describe at least one of each."
        )
    _KNOWN.append(architecture)


def architecture_of(model_or_config: Any) -> Architecture:
    """What is known of a model's family.

    Args:
        model_or_config: A transformers model or its config.

    Returns:
        Its description; of several that fit, the one registered last.

    Raises:
        ShrinkError: If the family is unknown, or there is no transformers config.
    """
    config = model_or_config
    if not isinstance(config, PretrainedConfig):
        config = getattr(model_or_config, "config", None)  # adapters and exported models share no class
    if not isinstance(config, PretrainedConfig):
        raise ShrinkError(
            f"`model` must be a transformers model or a config, got {type(model_or_config).__name__}. "
            "Load one with from_pretrained()."
        )
    for architecture in reversed(_KNOWN):
        if config.model_type in architecture.model_types and all(
            getattr(config, name) == value for name, value in architecture.when.items()
        ):
            return architecture
    names = sorted({name for architecture in _KNOWN for name in architecture.model_types})
    raise ShrinkError(
        f"`model` must be of a family that hf_shrink knows ({', '.join(names)}), got model_type "
        f"{config.model_type!r}. Describe it once: hf_shrink.architectures.register_architecture("
        f"Architecture(model_types=({config.model_type!r},), …))."
    )
