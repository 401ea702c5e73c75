"""What stays of each parameter where units go, and copies of a model with other parameters in it."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.dead_units import Block


@dataclass
class Cut:
    """What stays of one parameter.

    Args:
        parameter: Itself, whole.
        axis: Along which it is cut.
        kept: Bool, one entry for each place along the axis.
    """

    parameter: nn.Parameter
    axis: int
    kept: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what stays."""
        shape = list(self.parameter.shape)
        shape[self.axis] = int(self.kept.sum())
        return tuple(shape)

    def apply(self, tensor: Tensor) -> Tensor:
        """Cut a tensor.

        Args:
            tensor: Shape of the parameter.

        Returns:
            What stays of it, with memory of its own.
        """
        return tensor.detach().index_select(self.axis, self.kept.nonzero().flatten().to(tensor.device))


def find_cuts(kept: Iterable[tuple[Block, Tensor]]) -> dict[int, Cut]:
    """Find what stays of each parameter, so that a shared one is cut once.

    Args:
        kept: Blocks with a bool tensor of shape (units,), True where the unit stays.

    Returns:
        The cuts by the parameters' identity.
    """
    cuts: dict[int, Cut] = {}
    for block, units in kept:
        for piece in block.pieces:
            size = piece.parameter.shape[piece.axis]
            whole = Cut(piece.parameter, piece.axis, torch.ones(size, dtype=torch.bool))
            cut = cuts.setdefault(id(piece.parameter), whole)
            along = units.repeat_interleave(piece.width)
            cut.kept[piece.start : piece.start + len(along)] &= along
    return cuts


def copy_with(model: PreTrainedModel, tensors: Mapping[int, Tensor]) -> PreTrainedModel:
    """Copy a model with other tensors for some parameters.

    Args:
        model: It stays as it is.
        tensors: By the parameters' identity; no copies are made of them.

    Returns:
        The copy, tied as the model is.
    """
    trains = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    # Once the memo holds a parameter's copy, deepcopy takes that one, and the whole parameter is never copied.
    memo: dict[int, Any] = {key: nn.Parameter(value, requires_grad=trains[key]) for key, value in tensors.items()}
    copied = copy.deepcopy(model, memo)
    if "_original_forward" in vars(copied):  # a Trainer left its mixed precision around the model
        del copied.forward, copied._original_forward
    return copied


def build_skeleton(
    model: PreTrainedModel, changes: Mapping[str, Any], *, model_class: type[PreTrainedModel] | None = None
) -> PreTrainedModel:
    """What transformers builds from a model's config with some fields changed.

    Args:
        model: The model.
        changes: Fields with their values.
        model_class: The class to build; default: the model's.

    Returns:
        A model on the meta device, but for its buffers.
    """
    config = copy.deepcopy(model.config)
    for field, value in changes.items():
        setattr(config, field, value)
    with init_empty_weights(include_buffers=False):
        return (model_class or type(model))._from_config(config, dtype=model.dtype)


def configs_of(model: nn.Module) -> Sequence[PretrainedConfig]:
    """The configs that a model and its parts hold.

    Args:
        model: Any module.

    Returns:
        Each once; T5's stacks have copies of their own.
    """
    held = [vars(module).get("config") for module in model.modules()]
    return list({id(config): config for config in held if isinstance(config, PretrainedConfig)}.values())


def check_plain(model: Any, purpose: str = "compact") -> None:
    """Refuse what holds no plain weights.

    Args:
        model: What the user gave.
        purpose: What it is for, as a verb.

    Raises:
        ShrinkError: If it is no transformers model, quantized, or not in memory.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a transformers model to {purpose}, got {name}. For PEFT give merge_and_unload()."
        )
    weights = list(model.parameters())
    if vars(model.config).get("quantization_config") is not None or not all(w.is_floating_point() for w in weights):
        raise ShrinkError(
            f"`model` must have float weights to {purpose}, got a quantized {name}. Compact before you quantize."
        )
    if any(weight.is_meta for weight in weights):
        raise ShrinkError(
            f"`model` must be in memory to {purpose}, got a {name} with weights on the meta device. "
            "Load it without offloading."
        )
