"""Heads of the attention blocks."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from hf_shrink.architectures import Attention
from hf_shrink.pruning.structures import STRUCTURES
from hf_shrink.pruning.structures._groups import Groups, Layers, Piece, Place, UnitSet, check_sets


@STRUCTURES.add("heads", paper="arXiv:1905.10650", form='"heads"', pattern="heads")
def heads(model: nn.Module, linears: Mapping[str, nn.Module]) -> Groups:
    """Prune whole heads of self-attention and cross-attention (Michel et al., 2019).

    A unit is a key and value head with all the query heads that share it: its rows and biases in the three
    projections and its columns in the output projection, whose bias stays. Sets whose projections are not all targets
    are left out.

    Where the first layer holds something with an entry for every head of all layers, as T5's relative positions, a
    unit is the head of that number in every attention block whose heads the same config field counts: one set.

    Args:
        model: Of a known family, with an adapter or without.
        linears: Linear maps by name.

    Returns:
        One set of units for each attention block, named as its output projection, or one named as the config field.
    """
    found: dict[str, list[_Block]] = {}
    for name, block in _blocks(model):
        found.setdefault(name, []).append(block)
    sets: dict[str, UnitSet] = {}
    lacking: list[str] = []
    for name, blocks in found.items():
        missing = [place.name for block in blocks for place in block.places if place.name not in linears]
        lacking += missing
        if not missing:
            sets[name] = UnitSet(blocks[0].units, tuple(piece for block in blocks for piece in _pieces(block)))
    check_sets("heads", sets, lacking)
    return Groups(sets)


class _Block(NamedTuple):
    attention: Attention
    places: list[Place]  # the output projection is the last
    units: int
    queries: int


def _blocks(model: nn.Module) -> Iterator[tuple[str, _Block]]:
    """The attention blocks, each with the name of its set."""
    layers = Layers(model, "heads")
    counted_together = {stack.heads_field for stack in layers.architecture.stacks if stack.first_layer_modules}
    for stack, layer in layers:
        queries = getattr(layers.config, stack.heads_field)
        units = getattr(layers.config, stack.key_value_heads_field or stack.heads_field)
        for attention in filter(None, (stack.attention, stack.cross_attention)):
            places = [layers.place(layer, path) for path in _paths(attention)]
            found = [place for place in places if place is not None]
            if len(found) == len(places):
                name = stack.heads_field if stack.heads_field in counted_together else found[-1].name
                yield name, _Block(attention, found, units, queries)


def _paths(attention: Attention) -> list[str]:
    return [*dict.fromkeys((attention.query, attention.key, attention.value)), attention.output]


def _pieces(block: _Block) -> list[Piece]:
    *inwards, output = block.places
    units, queries = block.units, block.queries
    if not block.attention.fused:
        rows = [piece for place in inwards for piece in place.rows(place.outputs // units)]
        return [*rows, *output.columns(inwards[0].outputs // units)]
    size = inwards[0].outputs // (queries + 2 * units)
    widths = (queries // units * size, size, size)  # of one unit within the queries, the keys and the values
    starts = (0, queries * size, (queries + units) * size)
    rows = [piece for width, start in zip(widths, starts, strict=True) for piece in inwards[0].rows(width, start)]
    return [*rows, *output.columns(widths[0])]
