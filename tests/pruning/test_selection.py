"""Which units stay: exact counts, the order of ties, shares of each set, and limits, against a sort written out."""

import math

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import threshold
from hf_shrink.pruning.selection import keep_highest

SPARSITIES = [0.0, 0.001, 0.29, 0.5, 0.8, 0.95, 1.0]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def sets_of(seed, shapes=((5, 7), (1,), (64,), (3, 4, 2), (0,), (40, 9)), dtype=torch.float32, levels=None):
    generator = torch.Generator().manual_seed(seed)
    sets = {}
    for index, shape in enumerate(shapes):
        values = torch.randn(shape, generator=generator)
        values = (values * levels).round() / levels if levels else values
        sets[f"set {index}"] = values.to(dtype)
    return sets


def keep(sets, *args, **kwargs):
    masks = keep_highest(lambda: iter(sets.items()), *args, **kwargs)
    assert list(masks) == list(sets)
    for name, mask in masks.items():
        assert (mask.dtype, mask.shape) == (torch.bool, sets[name].shape)
    return masks


def expected(sets, k, limits=None):
    """The first k of a stable sort, less what is over a set's limit."""
    order = [
        (score, place, name, unit)
        for place, (name, values) in enumerate(sets.items())
        for unit, score in enumerate(values.double().flatten().tolist())
    ]
    masks = {name: torch.ones(values.numel(), dtype=torch.bool) for name, values in sets.items()}
    room = dict(limits or {name: values.numel() for name, values in sets.items()})
    for _, _, name, unit in sorted(order, key=lambda entry: entry[:2] + entry[3:]):
        if k and room[name]:
            masks[name][unit] = False
            room[name] -= 1
            k -= 1
    return {name: mask.view(sets[name].shape) for name, mask in masks.items()}


def assert_same(masks, others):
    assert all(torch.equal(masks[name], others[name]) for name in others)


def pruned(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


# ------------------------------------------------------------------ all sets compared
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_lowest_go_to_the_exact_number(dtype, levels, sparsity):
    sets = sets_of(0, dtype=dtype, levels=levels)
    masks = keep(sets, sparsity, "global")
    total = sum(values.numel() for values in sets.values())
    assert sum(pruned(masks).values()) == round(sparsity * total)
    assert_same(masks, expected(sets, round(sparsity * total)))


@pytest.mark.parametrize("sparsity", [0.2, 0.8])
def test_a_million_in_bfloat16_to_the_exact_number(sparsity):
    sets = sets_of(1, shapes=((700, 1000), (300_003,)), dtype=torch.bfloat16)
    masks = keep(sets, sparsity, "global")
    assert sum(pruned(masks).values()) == round(sparsity * 1_000_003)
    highest = max(values[~masks[name]].max() for name, values in sets.items())
    assert all((values[masks[name]] >= highest).all() for name, values in sets.items())


def test_of_equal_scores_the_first_go():
    sets = {"a": torch.zeros(2, 2), "b": torch.tensor([-1.0, -0.0, 0.0])}
    masks = keep(sets, 4 / 7, "global")
    assert masks["a"].tolist() == [[False, False], [False, True]]
    assert masks["b"].tolist() == [False, True, True]


def test_pieces_share_one_count_of_ties(monkeypatch):
    monkeypatch.setattr(threshold, "CHUNK", 7)
    sets = sets_of(2, levels=1)
    for sparsity in (0.3, 0.45, 0.6):
        assert_same(keep(sets, sparsity, "global"), expected(sets, round(sparsity * 484)))


def test_a_transposed_set_goes_by_its_own_positions(monkeypatch):
    monkeypatch.setattr(threshold, "CHUNK", 8)
    rows = {"a": torch.zeros(6, 5).T}
    assert keep(rows, 0.4, "global")["a"].flatten().tolist() == [False] * 12 + [True] * 18


def test_a_threshold_from_float32_is_not_rounded_to_a_set_in_bfloat16():
    sets = {"half": torch.tensor([1.0, 1.0, 3.0], dtype=torch.bfloat16), "single": torch.tensor([1.001, 1.002, 2.0])}
    assert_same(keep(sets, 4 / 6, "global"), expected(sets, 4))
    assert_same(keep(sets, 3 / 6, "global"), expected(sets, 3))


def test_what_is_pruned_stays_pruned_as_the_sparsity_rises():
    sets = sets_of(3, levels=4)
    for scope in ("global", "local"):
        for step in range(40):
            masks = keep(sets, step / 40, scope)
            pruned_so_far = {name: values.masked_fill(~masks[name], -math.inf) for name, values in sets.items()}
            later = keep(pruned_so_far, (step + 1) / 40, scope)
            assert not any((later[name] & ~masks[name]).any() for name in sets)


# ------------------------------------------------------------------ each set by itself
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
def test_local_takes_the_lowest_of_each_set(sparsity, levels):
    sets = sets_of(4, levels=levels)
    masks = keep(sets, sparsity, "local")
    counts = pruned(masks)
    assert sum(counts.values()) == round(sparsity * 484)
    for name, values in sets.items():
        assert abs(counts[name] - sparsity * values.numel()) < 2
        assert_same({name: masks[name]}, expected({name: values}, counts[name]))


@pytest.mark.parametrize("shapes", [((1,),) * 100 + ((1000,),), ((12,),) * 24, ((3,), (5,), (2,)), ((3072,),) * 6])
def test_local_counts_are_even_exact_and_never_fall(shapes):
    sets = sets_of(5, shapes=shapes)
    sizes = {name: values.numel() for name, values in sets.items()}
    before = dict.fromkeys(sets, 0)
    for step in range(101):
        counts = pruned(keep(sets, step / 100, "local"))
        assert sum(counts.values()) == round(step / 100 * sum(sizes.values()))
        assert all(abs(counts[name] - step / 100 * sizes[name]) < 3 for name in sets)
        assert all(counts[name] >= before[name] for name in sets)
        before = counts


# ------------------------------------------------------------------ limits
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
def test_what_a_limit_saves_goes_elsewhere(seed, levels):
    sets = sets_of(seed, levels=levels)
    sets["set 2"] -= 2  # all of it would go
    for sparsity, limit in [(0.3, 0.5), (0.5, 0.55), (0.6, 0.9), (0.8, 0.85)]:
        limits = {name: int(limit * values.numel() + 1e-9) for name, values in sets.items()}
        masks = keep(sets, sparsity, "global", limit)
        assert sum(pruned(masks).values()) == round(sparsity * 484)
        assert all(pruned(masks)[name] <= limits[name] for name in sets)
        assert pruned(masks)["set 2"] == limits["set 2"]
        assert_same(masks, expected(sets, round(sparsity * 484), limits))


def test_a_limit_takes_several_pieces(monkeypatch):
    monkeypatch.setattr(threshold, "CHUNK", 5)
    sets = sets_of(6, levels=1, dtype=torch.bfloat16)
    limits = {name: values.numel() // 2 for name, values in sets.items()}
    assert_same(keep(sets, 0.4, "global", 0.5), expected(sets, round(0.4 * 484), limits))


def test_local_limits_hold_too():
    sets = sets_of(7, shapes=((3,), (4,), (5,)))
    counts = pruned(keep(sets, 0.4, "local", 0.5))
    assert sum(counts.values()) == 5
    assert list(counts.values()) == [1, 2, 2]


def test_a_limit_is_not_lost_to_rounding():
    sets = {"a": torch.arange(100.0), "b": 1000 + torch.arange(100.0)}
    assert pruned(keep(sets, 0.2, "global", 0.29)) == {"a": 29, "b": 11}  # 0.29 * 100 is 28.999999999999996


def test_limits_that_leave_no_room_are_refused():
    sets = sets_of(8, shapes=((10,), (10,)))
    with pytest.raises(ShrinkError, match="`max_module_sparsity` must let 16 of 20 units go .* lets 14 go"):
        keep(sets, 0.8, "global", 0.7)
    assert sum(pruned(keep(sets, 0.7, "global", 0.7)).values()) == 14


# ------------------------------------------------------------------ refusals
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["sparsity", "max_module_sparsity"])
def test_shares_must_be_shares(name, value):
    with pytest.raises(ShrinkError, match=f"`{name}` must be in"):
        keep({"a": torch.ones(3)}, **{"sparsity": 0.5, "scope": "global", name: value})


def test_an_unknown_scope_is_refused():
    with pytest.raises(ShrinkError, match="`scope` must be one of"):
        keep({"a": torch.ones(3)}, 0.5, "layer")


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("limit", [0.8, 1.0])
def test_nan_is_refused(scope, limit):
    with pytest.raises(ShrinkError, match="NaN for 'b'"):
        keep({"a": torch.ones(30), "b": torch.tensor([1.0, math.nan, 2.0])}, 0.5, scope, limit)
