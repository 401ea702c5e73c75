"""Which FFN units and heads add nothing to the outputs, and how far the config can follow them down."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from hf_shrink.architectures import Attention, LayerStack, architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.structures._groups import Layers, Piece, Place


@dataclass(frozen=True)
class Block:
    """The units of one feed-forward or attention block.

    Args:
        name: Of the projection that reads them.
        live: Shape (units,); False where all of the projection's columns are zero, so that the unit adds nothing.
        pieces: What the units are made of, the projection's columns last; what several blocks share included.
        chosen_with: Blocks that bear the same name here must keep the same units.
        counts: Numbers that modules keep of the units, by full name, with what they have for each unit; None where
            it is not known which.
    """

    name: str
    live: Tensor
    pieces: tuple[Piece, ...]
    chosen_with: str
    counts: Mapping[str, int] | None


@dataclass(frozen=True)
class Width:
    """How many units all blocks have that one config field speaks for.

    Args:
        field: The config field.
        units: How many of them a block has; under grouped queries a unit is a whole group.
        allowed: The numbers of units that the config takes, rising.
        unit: What the units are.
        blocks: The blocks.
        per_unit: What stands in the config for each unit: the field itself, and others that count with it.
        fixed: Config fields with the values that they must show where the field changes.
    """

    field: str
    units: int
    allowed: tuple[int, ...]
    unit: str
    blocks: tuple[Block, ...]
    per_unit: dict[str, int]
    fixed: dict[str, int]

    @property
    def smallest(self) -> int:
        """How many units are enough for every live one, in a number that the config takes."""
        most = max(int(live.sum()) for live in live_together(self.blocks).values())
        return min(count for count in self.allowed if count >= most)

    @property
    def total(self) -> int:
        """Units of all blocks together."""
        return self.units * len(self.blocks)

    @property
    def dead(self) -> int:
        """Those of them that are dead."""
        return sum(int((~block.live).sum()) for block in self.blocks)

    @property
    def now(self) -> int:
        """What the field says."""
        return self.units * self.per_unit[self.field]

    @property
    def config(self) -> dict[str, int]:
        """What the config says at the smallest width."""
        return {**{field: self.smallest * count for field, count in self.per_unit.items()}, **self.fixed}

    def kept(self) -> Iterator[tuple[Block, Tensor]]:
        """Choose units for the smallest width: all live ones, and of the dead ones the first to fill up.

        Yields:
            Every block with a bool tensor of shape (units,), True where the unit stays.
        """
        live = live_together(self.blocks)
        for block in self.blocks:
            order = (~live[block.chosen_with]).to(torch.uint8).argsort(stable=True)
            kept = torch.zeros(self.units, dtype=torch.bool)
            kept[order[: self.smallest]] = True
            yield block, kept


def find_widths(model: nn.Module) -> list[Width]:
    """Find what the config of a model could say less of.

    Args:
        model: Of a known family.

    Returns:
        The widths that can be changed in a model that stock transformers loads, as they are and as they could be.
        Models whose blocks are not equally wide are refused.
    """
    cuts = architecture_of(inner_model(model)).cuts
    found: dict[str, list[tuple[LayerStack, Block]]] = {}
    for stack, block in find_blocks(model, "ffn") if "ffn" in cuts else ():
        found.setdefault(stack.ffn_field, []).append((stack, block))
    _check_even(found, "FFN units")
    widths = [_ffn_width(field, [block for _, block in blocks]) for field, blocks in found.items()]
    found = {}
    for stack, block in find_blocks(model, "heads") if "heads" in cuts else ():
        found.setdefault(stack.heads_field, []).append((stack, block))
    _check_even(found, "heads")
    widths += [_heads_width(model, field, blocks) for field, blocks in found.items()]
    return widths


def _check_even(found: Mapping[str, list[tuple[LayerStack, Block]]], unit: str) -> None:
    for blocks in found.values():
        if len(numbers := {len(block.live) for _, block in blocks}) > 1:
            raise ShrinkError(
                f"`model` must have equally wide layers, as its config says, got {min(numbers)} to {max(numbers)} "
                f'{unit}. save_pruned(model, path, layout="pad") fills them up with zeros, exactly, and '
                'layout="remote" keeps them as they are.'
            )


def find_blocks(model: nn.Module, kind: Literal["ffn", "heads"]) -> list[tuple[LayerStack, Block]]:
    """Find the blocks of a model, whether or not its config can say less of their units.

    Args:
        model: Of a known family.
        kind: Feed-forward or attention.

    Returns:
        Every block with the stack that its layer is of, in the order of the layers.
    """
    layers = Layers(model)
    return list(_feed_forwards(layers) if kind == "ffn" else _attentions(layers))


def _feed_forwards(layers: Layers) -> Iterator[tuple[LayerStack, Block]]:
    for stack, layer in layers:
        block = stack.feed_forward
        up, down, gate = (layers.place(layer, path) if path else None for path in (block.up, block.down, block.gate))
        if up is None or down is None:
            continue
        rows = [piece for place in (up, gate) if place is not None for piece in place.rows(1)]
        yield stack, _block(down, up.outputs, 1, rows, down.name, {})


def _attentions(layers: Layers) -> Iterator[tuple[LayerStack, Block]]:
    for stack, layer in layers:
        for attention in (stack.attention, stack.cross_attention):
            if attention is not None and (block := _attention(layers, stack, layer, attention)) is not None:
                yield stack, block


def _attention(layers: Layers, stack: LayerStack, layer: nn.Module, attention: Attention) -> Block | None:
    paths = dict.fromkeys((attention.query, attention.key, attention.value))
    inwards = [place for path in paths if (place := layers.place(layer, path)) is not None]
    output = layers.place(layer, attention.output)
    if output is None or len(inwards) < len(paths):
        return None
    queries = getattr(layers.config, stack.heads_field)
    group = queries // getattr(layers.config, stack.key_value_heads_field or stack.heads_field)
    size = _head_size(layers, stack, queries)
    # Counted on the projections: in a model of free shape the config says how many there were.
    if attention.fused:
        units = inwards[0].outputs // (size * (group + 2))
        spans = [(group * size, 0), (size, units * group * size), (size, units * (group + 1) * size)]
        rows = [piece for width, start in spans for piece in inwards[0].rows(width, start)]
    else:
        units = min(place.outputs for place in inwards) // size  # of keys and values
        rows = [piece for place in inwards for piece in place.rows(place.outputs // units)]
    counts = _head_counts(layers, layer, attention, {"heads": group, "width": group * size})
    if not stack.first_layer_modules or attention is not stack.attention:
        return _block(output, units, group * size, rows, output.name, counts)
    # What the first layer holds for all layers has an entry for each head of their self-attention.
    shared = _first_layer_pieces(layers, stack, layer, group)
    return _block(output, units, group * size, [*rows, *shared], f"{stack.name}.{stack.heads_field}", counts)


def _head_size(layers: Layers, stack: LayerStack, queries: int) -> int:
    explicit = None if stack.head_dim_field is None else getattr(layers.config, stack.head_dim_field, None)
    return explicit or getattr(layers.config, layers.architecture.hidden_field) // queries


def _head_counts(
    layers: Layers, layer: nn.Module, attention: Attention, amounts: Mapping[str, int]
) -> dict[str, int] | None:
    if attention.head_counts is None:
        return None
    return {f"{layers.name(layer)}.{path}": amounts[what] for path, what in attention.head_counts.items()}


def _first_layer_pieces(layers: Layers, stack: LayerStack, layer: nn.Module, width: int) -> list[Piece]:
    places = [layers.place(layer, module.path) for module in stack.first_layer_modules]
    return [
        Piece(f"{place.name}.{name}", parameter, parameter.ndim - 1, 0, width)
        for place in places
        if place is not None  # in the other layers
        for name, parameter in place.module.named_parameters(recurse=False)
    ]


def _block(
    output: Place,
    units: int,
    width: int,
    rows: Iterable[Piece],
    chosen_with: str,
    counts: Mapping[str, int] | None,
) -> Block:
    (columns,) = output.columns(width)
    if columns.parameter.is_meta:  # nothing is known to be zero
        live = torch.ones(units, dtype=torch.bool)
    else:
        live = columns.sums(columns.parameter.detach() != 0, units) > 0
    return Block(output.name, live.cpu(), (*rows, columns), chosen_with, counts)


def live_together(blocks: Iterable[Block]) -> dict[str, Tensor]:
    """Find the units that live in at least one of the blocks that are chosen together.

    Args:
        blocks: Of one model.

    Returns:
        By `chosen_with`, shape (units,).
    """
    live: dict[str, list[Tensor]] = {}
    for block in blocks:
        live.setdefault(block.chosen_with, []).append(block.live)
    return {name: reduce(torch.logical_or, parts) for name, parts in live.items()}


def _ffn_width(field: str, blocks: list[Block]) -> Width:
    return Width(
        field=field,
        units=len(blocks[0].live),
        allowed=tuple(range(1, len(blocks[0].live) + 1)),
        unit="FFN units",
        blocks=tuple(blocks),
        per_unit={field: 1},
        fixed={},
    )


def _heads_width(model: nn.Module, field: str, found: list[tuple[LayerStack, Block]]) -> Width:
    architecture, config = architecture_of(inner_model(model)), inner_model(model).config
    blocks = [block for _, block in found]
    units, queries = len(blocks[0].live), getattr(config, field)
    columns = blocks[0].pieces[-1]
    per_unit = {field: queries // units}
    fixed: dict[str, int] = {}
    for stack, _ in found:
        if stack.key_value_heads_field is not None:
            per_unit[stack.key_value_heads_field] = 1
        if stack.head_dim_field is not None:  # left open it would follow from the number of heads
            fixed[stack.head_dim_field] = columns.width // (queries // units)
    hidden = getattr(config, architecture.hidden_field)
    allowed = tuple(
        count
        for count in range(1, units + 1)
        if count == units or not architecture.heads_divide_hidden or hidden % (count * per_unit[field]) == 0
    )
    unit = "heads" if queries == units else "groups of heads"
    return Width(field, units, allowed, unit, tuple(blocks), per_unit, fixed)
