"""Masked units cut out: smaller matrices that stock transformers loads."""

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PretrainedConfig, PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.dead_units import Width, find_widths
from hf_shrink.pruning.sparsity import sparsity_report

logger = logging.getLogger(__name__)


@dataclass
class _Cut:
    """What stays of one parameter."""

    parameter: nn.Parameter
    axis: int
    kept: Tensor  # bool, along the axis

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.parameter.shape)
        shape[self.axis] = int(self.kept.sum())
        return tuple(shape)

    def apply(self, tensor: Tensor) -> Tensor:
        """Cut a tensor of the parameter's shape."""
        return tensor.detach().index_select(self.axis, self.kept.nonzero().flatten().to(tensor.device))


def compact(model: PreTrainedModel, *, optimizer: Optimizer | None = None) -> PreTrainedModel:
    """Cut the FFN units and attention heads that add nothing, so that the model gets smaller and faster.

    A unit is cut where all weights that read it are zero, as after pruning with "neurons" or "heads": what comes out
    stays the same. Stock `from_pretrained` loads what `save_pretrained` writes of it, so all layers that a config
    field speaks for stay equally wide: the one with the most live units says how wide, the others keep some dead ones.
    Heads go where the family's config can hold fewer of them at the same size, and in whole groups that share a key.

    Args:
        model: A transformers model of a known family, without adapters.
        optimizer: The model's optimizer, torch's own or what accelerate made of it, to go on training with the
            smaller model: then the model itself is cut. Its parameters stay the same objects, with their gradients
            and what the optimizer keeps of each, such as Adam's moments. Compact before
            `DistributedDataParallel` wraps the model: its buckets have the old sizes.

    Returns:
        A smaller copy in the model's mode; with `optimizer` the model itself. Where nothing can be cut, the model
        itself, after a warning.
    """
    _check_model(model)
    widths = [width for width in find_widths(model) if width.smallest < width.units]
    if not widths:
        warnings.warn(_nothing_to_cut(model), stacklevel=2)
        return model
    changes = {field: value for width in widths for field, value in width.config.items()}
    cuts = _find_cuts(widths)
    before, after = _skeleton(model, {}), _skeleton(model, changes)
    _check_shapes(model, after, cuts)
    if optimizer is not None:
        _check_optimizer(optimizer, model, cuts)
    smaller = _cut_copy(model, cuts) if optimizer is None else _cut_in_place(model, cuts, optimizer)
    _write_config(smaller, changes)
    _write_attributes(smaller, before, after)
    for width in widths:
        logger.info(
            "Cut `%s` from %d to %d in each of %d blocks: %d of %d %s were dead.",
            *(width.field, width.now, width.config[width.field], len(width.blocks)),
            *(width.dead, width.total, width.unit),
        )
    return smaller


def _check_model(model: Any) -> None:
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a transformers model to compact, got {name}. For PEFT give merge_and_unload()."
        )
    weights = list(model.parameters())
    if vars(model.config).get("quantization_config") is not None or not all(w.is_floating_point() for w in weights):
        raise ShrinkError(
            f"`model` must have float weights to compact, got a quantized {name}. Compact before you quantize."
        )
    if any(weight.is_meta for weight in weights):
        raise ShrinkError(
            f"`model` must be in memory to compact, got a {name} with weights on the meta device. "
            "Load it without offloading."
        )


def _nothing_to_cut(model: PreTrainedModel) -> str:
    report = sparsity_report(model, ignore=())
    return (
        f"Nothing was cut, and the model is returned as it is: {100 * report.prunable.share:.1f} % of its prunable "
        f"weights are zero, but single zeros cannot be cut out of a matrix. {' '.join(report.notes)}"
    )


def _find_cuts(widths: Iterable[Width]) -> dict[int, _Cut]:
    """What stays of each parameter, by its identity, so that a shared one is cut once."""
    cuts: dict[int, _Cut] = {}
    for width in widths:
        for block, kept in width.kept():
            for piece in block.pieces:
                size = piece.parameter.shape[piece.axis]
                whole = _Cut(piece.parameter, piece.axis, torch.ones(size, dtype=torch.bool))
                cut = cuts.setdefault(id(piece.parameter), whole)
                along = kept.repeat_interleave(piece.width)
                cut.kept[piece.start : piece.start + len(along)] &= along
    return cuts


def _skeleton(model: PreTrainedModel, changes: Mapping[str, int]) -> PreTrainedModel:
    """What transformers builds from the model's config with some fields changed, without weights."""
    config = copy.deepcopy(model.config)
    for field, value in changes.items():
        setattr(config, field, value)
    with init_empty_weights(include_buffers=False):
        return type(model)._from_config(config, dtype=model.dtype)


def _check_shapes(model: PreTrainedModel, skeleton: PreTrainedModel, cuts: Mapping[int, _Cut]) -> None:
    """Check, before anything is cut, that transformers will load what comes out."""
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        shape = cuts[id(tensor)].shape if id(tensor) in cuts else tuple(tensor.shape)
        if expected.get(name) != shape:
            raise ShrinkError(
                f"`model` must be as its config describes it, so that stock transformers loads the smaller one, but "
                f"{name} would have the shape {shape} and not {expected.get(name)}. Merge adapters and remove other "
                "changes first."
            )


def _cut_copy(model: PreTrainedModel, cuts: Mapping[int, _Cut]) -> PreTrainedModel:
    # Once the memo holds a parameter's copy, deepcopy takes that one, and the whole parameter is never copied.
    memo: dict[int, Any] = {
        key: nn.Parameter(cut.apply(cut.parameter), requires_grad=cut.parameter.requires_grad)
        for key, cut in cuts.items()
    }
    smaller = copy.deepcopy(model, memo)
    if "_original_forward" in vars(smaller):  # a Trainer left its mixed precision around the model
        del smaller.forward, smaller._original_forward
    return smaller


def _cut_in_place(model: PreTrainedModel, cuts: Mapping[int, _Cut], optimizer: Optimizer) -> PreTrainedModel:
    for cut in cuts.values():
        parameter, gradient = cut.parameter, cut.parameter.grad
        state = optimizer.state.get(parameter, {})
        for key, value in _of_shape(state, parameter).items():
            state[key] = cut.apply(value)
        parameter.grad = None  # one of another shape cannot stay while the data change
        parameter.data = cut.apply(parameter)
        parameter.grad = None if gradient is None else cut.apply(gradient)
    return model


def _check_optimizer(optimizer: Any, model: PreTrainedModel, cuts: Mapping[int, _Cut]) -> None:
    if not isinstance(optimizer, Optimizer):
        raise ShrinkError(
            f"`optimizer` must be the torch optimizer that trains the model, got {type(optimizer).__name__}. "
            "Give trainer.optimizer."
        )
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not owned & {id(parameter) for parameter in model.parameters()}:
        raise ShrinkError(
            "`optimizer` must hold parameters of `model`, got one of another model. Give the one that trains it."
        )
    for cut in cuts.values():
        for key, value in optimizer.state.get(cut.parameter, {}).items():
            if isinstance(value, Tensor) and value.numel() > 1 and not _is_like(value, cut.parameter):
                raise ShrinkError(
                    f"`optimizer` must keep its state weight by weight, as AdamW does, got {key} of shape "
                    f"{tuple(value.shape)} and {value.dtype} for a weight of shape {tuple(cut.parameter.shape)} in "
                    f"{type(optimizer).__name__}. Compact after training, without `optimizer`."
                )


def _of_shape(state: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, Tensor]:
    return {k: value for k, value in state.items() if isinstance(value, Tensor) and _is_like(value, parameter)}


def _is_like(value: Tensor, parameter: nn.Parameter) -> bool:
    return value.shape == parameter.shape and value.is_floating_point()  # whole numbers are quantized, in blocks


def _configs(model: nn.Module) -> Sequence[PretrainedConfig]:
    held = [vars(module).get("config") for module in model.modules()]
    return list({id(config): config for config in held if isinstance(config, PretrainedConfig)}.values())


def _write_config(model: PreTrainedModel, changes: Mapping[str, int]) -> None:
    for config in _configs(model):  # T5's stacks have copies of their own
        for field, value in changes.items():
            setattr(config, field, value)


def _write_attributes(model: PreTrainedModel, before: PreTrainedModel, after: PreTrainedModel) -> None:
    """Let the modules' own numbers follow, such as `out_features` and `n_heads`: those that the config changes."""
    old, new = dict(before.named_modules()), dict(after.named_modules())
    for name, module in model.named_modules():
        if name not in old or name not in new:
            continue
        for key, value in vars(new[name]).items():
            if isinstance(value, (int, float)) and vars(old[name]).get(key) != value:
                setattr(module, key, value)
