"""Neurons of the feed-forward blocks."""

from collections.abc import Mapping

from torch import nn

from hf_shrink.pruning.structures import STRUCTURES
from hf_shrink.pruning.structures._groups import Groups, Layers, UnitSet, check_sets


@STRUCTURES.add("neurons", paper="arXiv:1910.06360", form='"neurons"', pattern="neurons")
def neurons(model: nn.Module, linears: Mapping[str, nn.Module]) -> Groups:
    """Prune whole inner neurons of the feed-forward blocks (McCarley et al., 2019).

    A unit is a neuron: its row and bias in the projection up, and in the gate where there is one, and its column in
    the projection down, whose bias stays. Blocks whose projections are not all targets are left out.

    Args:
        model: Of a known family, with an adapter or without.
        linears: Linear maps by name.

    Returns:
        One set of units for each layer, named as its projection down.
    """
    sets: dict[str, UnitSet] = {}
    lacking: list[str] = []
    layers = Layers(model, "ffn")
    for stack, layer in layers:
        block = stack.feed_forward
        paths = [block.up, *([block.gate] if block.gate else []), block.down]
        places = [place for path in paths if (place := layers.place(layer, path)) is not None]
        missing = [place.name for place in places if place.name not in linears]
        lacking += missing
        if missing or len(places) < len(paths):
            continue
        *inwards, down = places
        rows = [piece for place in inwards for piece in place.rows(1)]
        sets[down.name] = UnitSet(inwards[0].outputs, (*rows, *down.columns(1)))
    check_sets("neurons", sets, lacking)
    return Groups(sets)
