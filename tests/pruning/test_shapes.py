"""Shapes: as large as the limits allow, and never larger."""

import itertools
from fractions import Fraction
from functools import cache

import pytest
import torch

from hf_shrink.architectures import find_layers
from hf_shrink.pruning.constraints import Limits, read_constraints
from hf_shrink.pruning.costs import Cost, CostTable, count_costs
from hf_shrink.pruning.dead_units import Block, Width, find_blocks, find_widths
from hf_shrink.pruning.shapes import Parts, even_shapes, smallest_cost, uneven_shapes
from tests.architectures.models import tiny_model

SIZES = {"whisper": {"decoder_ffn_dim": 24}, "t5": {}, "llama": {}, "bert": {}}
EASY = {"macs": 0.8}
LIMITS = [EASY, {"parameters": 0.7}, {"macs": 0.75, "parameters": 0.7}, {"macs": 0.9, "size_mb": 0.11}]


@cache
def parts_of(family, *, even=True, kinds=("ffn", "heads"), dropping=True):
    """A tiny model's parts with scores by lot."""
    model = tiny_model(family, **SIZES[family])
    widths = [w for w in find_widths(model) if ("ffn" if w.unit == "FFN units" else "heads") in kinds] if even else []
    blocks = [block for width in widths for block in width.blocks]
    if not even:
        blocks = [block for kind in kinds for _, block in find_blocks(model, kind)]
    names = {module: name for name, module in model.named_modules()}
    places = [(stack, i, names[layer]) for stack, held in find_layers(model).items() for i, layer in enumerate(held)]
    generator = torch.Generator().manual_seed(3)
    by_lot = {block.chosen_with: torch.rand(len(block.live), generator=generator) for block in blocks}
    return Parts(
        table=count_costs(model, 9),
        layers=[(stack, i) for i, stack in itertools.product((1, 2, 0), find_layers(model))] if dropping else [],
        blocks=blocks,
        widths=widths,
        layer_of={b.name: next((s, i) for s, i, name in places if b.name.startswith(f"{name}.")) for b in blocks},
        scores={block.name: by_lot[block.chosen_with] for block in blocks},
    )


def cost(parts, shape):
    return parts.cost(shape.dropped, {name: int((~kept).sum()) for name, kept in shape.kept.items()})


def widths_of(parts, shape):
    """By config field how many units stay."""
    found = {}
    for width in parts.widths:
        (found[width.field],) = {int(shape.kept[block.name].sum()) for block in width.blocks}
    return found


def scaled(widths, share):
    """The most units within a share."""
    return {w.field: max((n for n in w.allowed if n <= share * w.units), default=w.allowed[0]) for w in widths}


@pytest.mark.parametrize("constraints", LIMITS, ids=str)
@pytest.mark.parametrize("family", SIZES)
def test_even_shapes_are_as_large_as_the_limits_allow(family, constraints):
    parts = parts_of(family)
    limits = read_constraints(constraints, parts.table.total)
    shapes = list(even_shapes(parts, limits))
    assert shapes
    neurons = [width for width in parts.widths if width.unit == "FFN units"]
    steps = sorted({Fraction(n, width.units) for width in neurons for n in width.allowed})
    for shape in shapes:
        assert shape.dropped == tuple(parts.layers[: len(shape.dropped)])
        assert limits.met_by(cost(parts, shape))
        found = widths_of(parts, shape)
        wider = [share for share in steps if any(scaled(neurons, share)[w.field] > found[w.field] for w in neurons)]
        if wider:  # one step more breaks a limit
            found |= scaled(neurons, wider[0])
            gone = {block.name: width.units - found[width.field] for width in parts.widths for block in width.blocks}
            assert not limits.met_by(parts.cost(shape.dropped, gone))
    assert len({(shape.dropped, *widths_of(parts, shape).items()) for shape in shapes}) == len(shapes)


def test_all_numbers_of_layers_and_heads_are_tried():
    parts = parts_of("llama")
    shapes = list(even_shapes(parts, read_constraints({"macs": 0.75}, parts.table.total)))
    found = {}
    for shape in shapes:
        widths = widths_of(parts, shape)
        found[len(shape.dropped), widths["num_attention_heads"]] = widths["intermediate_size"]
    assert {(0, 2), (0, 1), (1, 2)} <= found.keys()  # groups of heads
    assert found[0, 2] < found[0, 1]
    assert found[0, 2] < found[1, 2]


def test_the_best_units_stay():
    parts = parts_of("bert", dropping=False)
    (shape,) = even_shapes(parts, read_constraints(EASY, parts.table.total))
    for name, kept in shape.kept.items():
        scores = parts.scores[name]
        assert 0 < kept.sum() < len(kept)
        assert scores[kept].min() > scores[~kept].max()


def test_what_fits_stays_whole():
    for even in (True, False):
        parts = parts_of("t5", even=even)
        (shape,) = (even_shapes if even else uneven_shapes)(parts, read_constraints({"macs": 1.0}, parts.table.total))
        assert not shape.dropped
        assert all(kept.all() for kept in shape.kept.values())
        assert cost(parts, shape) == parts.table.total


def test_fewer_heads_than_fit_are_not_tried():
    parts = parts_of("t5", kinds=("heads",), dropping=False)
    (shape,) = even_shapes(parts, read_constraints({"macs": 0.9}, parts.table.total))
    assert widths_of(parts, shape) == {"num_heads": 3}


def test_two_widths_shrink_by_the_same_share():
    parts = parts_of("whisper", dropping=False)
    for share in (0.95, 0.9, 0.85, 0.8):
        (shape,) = even_shapes(parts, read_constraints({"macs": share}, parts.table.total))
        found = widths_of(parts, shape)
        assert found.keys() == {"encoder_ffn_dim", "decoder_ffn_dim"}
        assert abs(found["encoder_ffn_dim"] / 40 - found["decoder_ffn_dim"] / 24) < 1 / 24


def made_up(units, *, per_unit=1.0):
    """One block of one layer that costs nothing but its units."""
    block = Block("down", torch.ones(units, dtype=torch.bool), (), "down", {})
    width = Width("ffn", units, tuple(range(1, units + 1)), "FFN units", (block,), {"ffn": 1}, {})
    unit = Cost(per_unit, per_unit, per_unit)
    table = CostTable(unit * units, {"encoder": [unit * units]}, {"down": unit})
    scores = {"down": torch.arange(units, 0, -1).float()}
    return Parts(table, [], [block], [width], {"down": ("encoder", 0)}, scores)


@pytest.mark.parametrize("units", [39, 40, 47, 49, 55, 64])
def test_every_width_of_narrow_blocks_is_found(units):
    # In floating point 3 / 47 * 47 is less than 3, and blocks of 3 would lose one more.
    parts = made_up(units)
    for most in range(1, units + 1):
        (shape,) = even_shapes(parts, Limits({"macs": float(most)}))
        assert shape.kept["down"].tolist() == [True] * most + [False] * (units - most)


def test_wide_blocks_shrink_by_eights():
    parts = made_up(100)
    found = {}
    for most in (8, 15, 16, 95, 96, 99, 100):
        (shape,) = even_shapes(parts, Limits({"macs": float(most)}))
        found[most] = int(shape.kept["down"].sum())
    assert found == {8: 8, 15: 8, 16: 16, 95: 88, 96: 96, 99: 96, 100: 100}
    assert not list(even_shapes(parts, Limits({"macs": 7.0})))
    assert smallest_cost(parts, even=True).macs == 8
    (shape,) = uneven_shapes(parts, Limits({"macs": 7.0}))
    assert int(shape.kept["down"].sum()) == 7


@pytest.mark.parametrize("constraints", LIMITS, ids=str)
@pytest.mark.parametrize("family", SIZES)
def test_uneven_shapes_lose_the_units_that_are_worth_least_for_their_cost(family, constraints):
    parts = parts_of(family, even=False)
    limits = read_constraints(constraints, parts.table.total)
    shapes = list(uneven_shapes(parts, limits))
    assert shapes
    for shape in shapes:
        assert limits.met_by(cost(parts, shape))
        assert all(kept.any() for kept in shape.kept.values())
        together, worth_kept, worth_gone = {}, [], []
        for block in parts.blocks:
            together.setdefault(block.chosen_with, []).append(block.name)
        for names in together.values():
            names = [name for name in names if parts.layer_of[name] not in shape.dropped]
            if not names:
                continue
            kept = shape.kept[names[0]]
            assert all(torch.equal(shape.kept[name], kept) for name in names)
            unit = sum((parts.table.units[name] for name in names[1:]), parts.table.units[names[0]])
            worth = parts.scores[names[0]] / limits.excess(unit)
            worth_gone += [(value, unit) for value in worth[~kept].tolist()]
            worth_kept += worth[kept].tolist() if kept.sum() > 1 else []
        if worth_gone:
            highest, unit = max(worth_gone, key=lambda each: each[0])
            assert highest <= min(worth_kept)
            assert not limits.met_by(cost(parts, shape) + unit)  # the last one had to go
    widths = {int(kept.sum()) for kept in shapes[0].kept.values()}
    assert len(widths) > 2


def test_t5_blocks_of_a_stack_keep_the_same_heads():
    parts = parts_of("t5", even=False, kinds=("heads",), dropping=False)
    (shape,) = uneven_shapes(parts, read_constraints({"macs": 0.8}, parts.table.total))
    encoder = [kept for name, kept in shape.kept.items() if name.startswith("encoder")]
    decoder = [kept for name, kept in shape.kept.items() if "decoder" in name and "SelfAttention" in name]
    assert (len(encoder), len(decoder)) == (4, 3)
    assert all(torch.equal(kept, encoder[0]) for kept in encoder)
    assert all(torch.equal(kept, decoder[0]) for kept in decoder)


def test_layers_alone_serve_whether_or_not_blocks_stay_even():
    for even in (True, False):
        parts = parts_of("bert", even=even, kinds=())
        shapes = list(
            (even_shapes if even else uneven_shapes)(parts, read_constraints({"macs": 0.6}, parts.table.total))
        )
        assert shapes
        assert all(shape.dropped and not shape.kept for shape in shapes)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("family", SIZES)
def test_the_smallest_cost_is_the_least_that_can_be_asked_for(family, even):
    parts = parts_of(family, even=even)
    find = even_shapes if even else uneven_shapes
    least = smallest_cost(parts, even=even)
    (shape,) = find(parts, Limits({"macs": least.macs, "parameters": least.parameters}))
    assert cost(parts, shape).macs == pytest.approx(least.macs)
    assert len(shape.dropped) == len(parts.layers)
    assert not list(find(parts, Limits({"macs": 0.999 * least.macs})))
    assert not list(find(parts, Limits({"macs": 1e12, "parameters": 0.999 * least.parameters})))


def test_dropped_layers_keep_their_units():
    parts = parts_of("llama")
    first = ("decoder", 1)
    inside = [name for name, layer in parts.layer_of.items() if layer == first]
    left = parts.cost([first], dict.fromkeys(inside, 1))
    assert left == parts.table.total - parts.table.layers["decoder"][1]
