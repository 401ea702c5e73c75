"""How much of a model stays: layers, and units of each block."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from hf_shrink.pruning.constraints import Limits
from hf_shrink.pruning.costs import Cost, CostTable
from hf_shrink.pruning.dead_units import Block, Width

STEP, NARROW = 8, 64  # matrix kernels like whole eights; narrow blocks have none to give away

Layer = tuple[str, int]  # stack and index


@dataclass(frozen=True)
class Shape:
    """What stays of a model.

    Args:
        dropped: Layers that go.
        kept: By the name of a block, shape (units,), True where a unit stays; all stay in blocks that are not named.
    """

    dropped: tuple[Layer, ...]
    kept: Mapping[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """What a model is made of, as far as it may lose any.

    Args:
        table: What the parts cost.
        layers: Those that may go, the least important first.
        blocks: Those whose units may go.
        widths: Theirs, where they stay equally wide.
        layer_of: The layer that a block is in, by its name.
        scores: By the name of a block, shape (units,), higher is kept; the same for blocks that are chosen together.
    """

    table: CostTable
    layers: Sequence[Layer]
    blocks: Sequence[Block]
    widths: Sequence[Width]
    layer_of: Mapping[str, Layer]
    scores: Mapping[str, Tensor]

    def cost(self, dropped: Sequence[Layer], gone: Mapping[str, int]) -> Cost:
        """What is left to pay for.

        Args:
            dropped: Layers that go.
            gone: By the name of a block, how many of its units go.

        Returns:
            The cost.
        """
        total = self.table.total
        for stack, index in dropped:
            total = total - self.table.layers[stack][index]
        for name, count in gone.items():
            if self.layer_of[name] not in dropped:
                total = total - self.table.units[name] * count
        return total


def even_shapes(parts: Parts, limits: Limits) -> Iterator[Shape]:
    """The shapes that a config can say, each as large as the limits allow.

    Args:
        parts: Of the model.
        limits: Of its costs.

    Yields:
        For every number of layers and of heads with which the limits can be met, the shape with the widest
        feed-forward blocks; none that lies within another with as many layers.
    """
    heads, neurons = heads_and_neurons(parts.widths)
    shares = _shares(neurons)
    for dropped in _droppable(parts):
        for share in reversed(_shares(heads)):
            counts = [_counts(heads, share) | _counts(neurons, narrow) for narrow in shares]
            fitting = bisect_left(counts, True, key=lambda each: not limits.met_by(_even_cost(parts, dropped, each)))
            if fitting:
                yield _even(parts, dropped, counts[fitting - 1])
            if fitting == len(counts):  # those with fewer heads are within this one
                if share == 1:  # and those with fewer layers
                    return
                break


def uneven_shapes(parts: Parts, limits: Limits) -> Iterator[Shape]:
    """Shapes whose blocks are as wide as their units are worth: those go first that are worth least for their cost.

    Args:
        parts: Of the model.
        limits: Of its costs.

    Yields:
        For every number of layers with which the limits can be met, one shape.
    """
    for dropped in _droppable(parts):
        kept = {name: torch.ones(len(scores), dtype=torch.bool) for name, scores in parts.scores.items()}
        cost = parts.cost(dropped, {})
        for names, unit in _least_worth(parts, limits, dropped):
            if limits.met_by(cost):
                break
            if int(kept[names[0]].sum()) > 1:
                for name in names:
                    kept[name][unit] = False
                cost = cost - _unit_cost(parts, names)
        if not limits.met_by(cost):
            continue
        yield Shape(dropped, kept)
        if all(units.all() for units in kept.values()):  # all shapes to come are within this one
            return


def smallest_cost(parts: Parts, *, even: bool) -> Cost:
    """The least that a model can be made to cost.

    Args:
        parts: Of the model.
        even: Whether the blocks stay equally wide.

    Returns:
        With at least one unit in a block and one layer in a stack.
    """
    *_, dropped = _droppable(parts)
    if even:
        heads, neurons = heads_and_neurons(parts.widths)
        return _even_cost(parts, dropped, _counts(heads, Fraction(0)) | _counts(neurons, Fraction(0)))
    return parts.cost(dropped, {name: len(scores) - 1 for name, scores in parts.scores.items()})


def heads_and_neurons(widths: Sequence[Width]) -> tuple[list[Width], list[Width]]:
    """Tell the widths of attention blocks from those of feed-forward blocks.

    Args:
        widths: Of both kinds.

    Returns:
        The former and the latter.
    """
    heads = [width for width in widths if width.unit != "FFN units"]
    return heads, [width for width in widths if width.unit == "FFN units"]


def narrowed(parts: Parts, widths: Sequence[Width], share: Fraction) -> Shape:
    """The shape with all layers, and fewer units in some blocks.

    Args:
        parts: Of the model.
        widths: Of these blocks.
        share: Of the units that stay; at least the fewest that the config takes.

    Returns:
        The shape.
    """
    return _even(parts, (), _counts(widths, share))


# ---------------------------------------------------------------------- layers
def _droppable(parts: Parts) -> Iterator[tuple[Layer, ...]]:
    return (tuple(parts.layers[:count]) for count in range(len(parts.layers) + 1))


# ---------------------------------------------------------------------- equally wide blocks
def _steps(width: Width) -> list[int]:
    """The numbers of units that are tried."""
    return [n for n in width.allowed if n == width.units or width.units <= NARROW or n % STEP == 0]


def _shares(widths: Sequence[Width]) -> list[Fraction]:
    return sorted({Fraction(n, width.units) for width in widths for n in _steps(width)} or {Fraction(1)})


def _counts(widths: Sequence[Width], share: Fraction) -> dict[str, int]:
    """By config field the most units that are within a share."""
    return {
        width.field: max([n for n in _steps(width) if n <= share * width.units], default=_steps(width)[0])
        for width in widths
    }


def _even_cost(parts: Parts, dropped: Sequence[Layer], counts: Mapping[str, int]) -> Cost:
    gone = {block.name: width.units - counts[width.field] for width in parts.widths for block in width.blocks}
    return parts.cost(dropped, gone)


def _even(parts: Parts, dropped: tuple[Layer, ...], counts: Mapping[str, int]) -> Shape:
    kept = {}
    for width in (width for width in parts.widths if width.field in counts):
        for block in width.blocks:
            best = parts.scores[block.name].argsort(descending=True, stable=True)[: counts[width.field]]
            kept[block.name] = torch.zeros(width.units, dtype=torch.bool).index_fill(0, best.cpu(), True)
    return Shape(dropped, kept)


# ---------------------------------------------------------------------- blocks of any width
def _least_worth(parts: Parts, limits: Limits, dropped: Sequence[Layer]) -> Iterator[tuple[list[str], int]]:
    """Units by what they are worth for their cost: the names of the blocks that lose one, and its number in them."""
    groups: dict[str, list[str]] = {}
    for block in parts.blocks:
        if parts.layer_of[block.name] not in dropped:
            groups.setdefault(block.chosen_with, []).append(block.name)
    ranked = []
    for names in groups.values():
        price = limits.excess(_unit_cost(parts, names))
        ranked += [(score / price, names, unit) for unit, score in enumerate(parts.scores[names[0]].tolist())]
    for _, names, unit in sorted(ranked, key=lambda each: each[0]):
        yield names, unit


def _unit_cost(parts: Parts, names: Sequence[str]) -> Cost:
    first, *others = (parts.table.units[name] for name in names)
    return sum(others, first)
