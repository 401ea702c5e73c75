"""Models whose layers are not equally wide: cut so, written down in the config, and filled up with zeros again."""

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.cuts import build_skeleton, configs_of, copy_with, find_cuts
from hf_shrink.pruning.dead_units import Block, find_blocks, live_together
from hf_shrink.versions import base_model

RECORD = "hf_shrink_shapes"  # the config field that modeling_hf_shrink.py reads
PRUNED_HEADS = "pruned_heads"  # the one in which transformers 4 keeps what its prune_heads took out
SIZES: dict[type, dict[str, tuple[str, int]]] = {  # numbers that a module keeps of its weight's shape
    nn.Linear: {"out_features": ("weight", 0), "in_features": ("weight", 1)},
    nn.Embedding: {"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)},
    Conv1D: {"nx": ("weight", 0), "nf": ("weight", 1)},
}
Shapes = dict[str, dict[str, Any]]


def blocks_of(model: nn.Module) -> list[Block]:
    """All blocks of units, feed-forward before attention.

    Args:
        model: Of a known family, in any shape.

    Returns:
        The blocks.
    """
    return [block for kind in ("ffn", "heads") for _, block in find_blocks(model, kind)]  # type: ignore[arg-type]


def needed_units(model: nn.Module) -> Iterator[tuple[Block, Tensor]]:
    """Find the units that no shape can do without: those that live, and one of each block.

    Args:
        model: Of a known family, in any shape.

    Yields:
        Every block with a bool tensor of shape (units,).
    """
    blocks = blocks_of(model)
    live = live_together(blocks)
    for block in blocks:
        needed = live[block.chosen_with].clone()
        needed[0] |= not needed.any()  # without any, shapes of attention are not known any more
        yield block, needed


def cut_freely(model: PreTrainedModel) -> PreTrainedModel:
    """Cut every dead unit of every block.

    Args:
        model: As its config describes it.

    Returns:
        A smaller copy, of the same class, whose shapes stand in its config. Only a class of `modeling_hf_shrink.py`
        loads it.
    """
    needed = [(block, units) for block, units in needed_units(model) if not units.all()]
    _check_counts(model, needed)
    cuts = find_cuts(needed)
    smaller = copy_with(model, {key: cut.apply(cut.parameter) for key, cut in cuts.items()})
    owners = {name.rpartition(".")[0] for name, parameter in model.named_parameters() if id(parameter) in cuts}
    shapes = {name: _sizes(smaller.get_submodule(name)) for name in sorted(owners)}
    for block, units in needed:
        for path, amount in (block.counts or {}).items():
            owner, _, key = path.rpartition(".")
            shapes.setdefault(owner, {})[key] = int(units.sum()) * amount
    _write_numbers(smaller, shapes)
    # Names from the model beneath the head, so that every head finds them.
    start = _start_of(model, base_model(model))
    setattr(smaller.config, RECORD, {name.removeprefix(start): sizes for name, sizes in shapes.items()})
    return smaller


def fill_up(model: PreTrainedModel) -> PreTrainedModel:
    """Put zero units where a model has fewer than its config says.

    Args:
        model: In any shape, of a stock class or one of `modeling_hf_shrink.py`.

    Returns:
        A copy of the stock class as its config describes it, which computes the same; a model that is so already
        itself.

    Raises:
        ShrinkError: If more differs than numbers of units.
    """
    stock = stock_class(model)
    plain: dict[str, Any] = {field: {} for field in (RECORD, PRUNED_HEADS) if vars(model.config).get(field)}
    skeleton = build_skeleton(model, plain, model_class=stock)
    if type(model) is stock and not plain and not _differing(model, skeleton):
        return model
    tensors: dict[int, Tensor] = {}
    numbers: Shapes = {}
    for block, full in zip(blocks_of(model), blocks_of(skeleton), strict=True):
        _widen(block, full, tensors)
        for path, amount in (full.counts or {}).items():
            owner, _, key = path.rpartition(".")
            numbers.setdefault(owner, {})[key] = len(full.live) * amount
    filled = copy_with(model, tensors)
    filled.__class__ = stock
    names = {name.rpartition(".")[0] for name, parameter in model.named_parameters() if id(parameter) in tensors}
    _write_numbers(filled, {name: _sizes(filled.get_submodule(name)) for name in names})
    _write_numbers(filled, numbers)
    _forget(filled)
    if differing := _differing(filled, skeleton):
        raise ShrinkError(
            "`model` must be as its config describes it but for FFN units and heads, got another shape of "
            f"{', '.join(differing[:3])}. Merge adapters and undo other changes first."
        )
    return filled


def stock_class(model: PreTrainedModel) -> type[PreTrainedModel]:
    """The class of transformers that a model is of.

    Args:
        model: Of such a class, or of one that `modeling_hf_shrink.py` made of it.

    Returns:
        The class.

    Raises:
        ShrinkError: If it is of another class.
    """
    name = type(model).__name__
    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not isinstance(model, found):
        raise ShrinkError(
            f"`model` must be of a class that transformers has, got {name}. Save it with its own save_pretrained()."
        )
    return found


def _check_counts(model: PreTrainedModel, needed: list[tuple[Block, Tensor]]) -> None:
    for block, _ in needed:
        if block.counts is None:
            raise ShrinkError(
                f'`layout` must be "native" or "pad" where it is not known where {type(model).__name__} keeps its '
                f'number of heads, got "remote" with dead heads in {block.name}. Give `head_counts` to the Attention '
                "of its registered Architecture."
            )


def _sizes(module: nn.Module) -> dict[str, Any]:
    """Shapes of a module's parameters, and the numbers that it keeps of them."""
    sizes: dict[str, Any] = {name: list(p.shape) for name, p in module.named_parameters(recurse=False)}
    for kind, numbers in SIZES.items():
        if isinstance(module, kind):
            sizes |= {key: sizes[name][axis] for key, (name, axis) in numbers.items() if key in vars(module)}
    return sizes


def _write_numbers(model: nn.Module, shapes: Shapes) -> None:
    for name, sizes in shapes.items():
        module = model.get_submodule(name)
        for key, size in sizes.items():
            if isinstance(size, int):
                setattr(module, key, size)


def _start_of(model: nn.Module, part: nn.Module) -> str:
    names = {id(module): name for name, module in model.named_modules()}
    return f"{names[id(part)]}." if names[id(part)] else ""


def _forget(model: nn.Module) -> None:
    """Let configs and modules say nothing any more of units that were missing."""
    for config in configs_of(model):
        if vars(config).pop(RECORD, None):
            vars(config).pop("auto_map", None)
        if vars(config).get(PRUNED_HEADS):
            setattr(config, PRUNED_HEADS, {})
    for module in model.modules():
        if vars(module).get(PRUNED_HEADS):
            setattr(module, PRUNED_HEADS, set())


def _widen(block: Block, full: Block, tensors: dict[int, Tensor]) -> None:
    """Give a block's parameters, in `tensors`, as many units as the full one has: its own first, then zeros."""
    for piece, whole in zip(block.pieces, full.pieces, strict=True):
        if piece.width != whole.width or len(block.live) > len(full.live):
            raise ShrinkError(
                f"`model` must have at most the units that its config says, got {piece.name} of shape "
                f"{tuple(piece.parameter.shape)} for {tuple(whole.parameter.shape)}. Load it with from_pretrained()."
            )
        if len(block.live) == len(full.live):
            continue
        key, length = id(piece.parameter), len(block.live) * piece.width
        if key not in tensors:
            tensors[key] = piece.parameter.new_zeros(whole.parameter.shape, requires_grad=False)
        with torch.no_grad():
            source = piece.parameter.narrow(piece.axis, piece.start, length)
            tensors[key].narrow(whole.axis, whole.start, length).copy_(source)


def _differing(model: PreTrainedModel, skeleton: PreTrainedModel) -> list[str]:
    """Parameters that the skeleton lacks or has in another shape; tied ones may bear further names there."""
    expected = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
    return [name for name, parameter in model.named_parameters() if expected.get(name) != parameter.shape]
