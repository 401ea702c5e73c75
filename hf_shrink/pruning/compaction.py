"""Masked units cut out: smaller matrices that stock transformers loads."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.cuts import Cut, build_skeleton, check_plain, configs_of, copy_with, find_cuts
from hf_shrink.pruning.dead_units import find_widths
from hf_shrink.pruning.sparsity import sparsity_report

logger = logging.getLogger(__name__)


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
    check_plain(model)
    widths = [width for width in find_widths(model) if width.smallest < width.units]
    if not widths:
        warnings.warn(_nothing_to_cut(model), stacklevel=2)
        return model
    changes = {field: value for width in widths for field, value in width.config.items()}
    cuts = find_cuts(pair for width in widths for pair in width.kept())
    before, after = build_skeleton(model, {}), build_skeleton(model, changes)
    _check_shapes(model, after, cuts)
    if optimizer is not None:
        _check_optimizer(optimizer, model, cuts)
        smaller = _cut_in_place(model, cuts, optimizer)
    else:
        smaller = copy_with(model, {key: cut.apply(cut.parameter) for key, cut in cuts.items()})
    _write_config(smaller, changes)
    _write_attributes(smaller, before, after)
    for width in widths:
        logger.info(
            "Cut `%s` from %d to %d in each of %d blocks: %d of %d %s were dead.",
            *(width.field, width.now, width.config[width.field], len(width.blocks)),
            *(width.dead, width.total, width.unit),
        )
    return smaller


def _nothing_to_cut(model: PreTrainedModel) -> str:
    report = sparsity_report(model, ignore=())
    return (
        f"Nothing was cut, and the model is returned as it is: {100 * report.prunable.share:.1f} % of its prunable "
        f"weights are zero, but single zeros cannot be cut out of a matrix. {' '.join(report.notes)}"
    )


def _check_shapes(model: PreTrainedModel, skeleton: PreTrainedModel, cuts: Mapping[int, Cut]) -> None:
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


def _cut_in_place(model: PreTrainedModel, cuts: Mapping[int, Cut], optimizer: Optimizer) -> PreTrainedModel:
    for cut in cuts.values():
        parameter, gradient = cut.parameter, cut.parameter.grad
        state = optimizer.state.get(parameter, {})
        for key, value in _of_shape(state, parameter).items():
            state[key] = cut.apply(value)
        parameter.grad = None  # one of another shape cannot stay while the data change
        parameter.data = cut.apply(parameter)
        parameter.grad = None if gradient is None else cut.apply(gradient)
    return model


def _check_optimizer(optimizer: Any, model: PreTrainedModel, cuts: Mapping[int, Cut]) -> None:
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


def _write_config(model: PreTrainedModel, changes: Mapping[str, int]) -> None:
    for config in configs_of(model):  # T5's stacks have copies of their own
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
