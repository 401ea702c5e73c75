import importlib

import numpy as np
import pytest

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from hf_shrink.dataset_distillation.grid import on_grid
from tests.dataset_distillation.selectors.rows import clumps, unit

module = importlib.import_module("hf_shrink.dataset_distillation.selectors.rds")


def pick(rows, targets, count):
    given = Candidates(len(rows), rows, targets=targets)
    return SELECTORS["rds"].function(given, count, np.random.default_rng(0)).rows.tolist()


def plain(rows, targets, count):
    products = on_grid(targets).astype(np.int64) @ on_grid(rows).astype(np.int64).T
    found = []
    while len(found) < count:
        for row in products[: count - len(found)]:
            row[found] = np.iinfo(np.int64).min
            found.append(int(row.argmax()))
    return found[:count]


def plane(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_targets_pick_in_turn_and_no_row_twice():
    # 40 is the nearest to both targets: the first has it, the second takes its next best
    assert pick(plane(0, 40, 60, 120), plane(35, 48), 3) == [1, 2, 0]


@pytest.mark.parametrize("spare", [0, 16])
@pytest.mark.parametrize("block", [1, 2**22])
@pytest.mark.parametrize("count", [1, 13, 150])
def test_the_picks_are_those_of_the_plain_algorithm(monkeypatch, spare, block, count):
    monkeypatch.setattr(module, "SPARE", spare)  # targets that like the same rows run out of those that are ranked
    monkeypatch.setattr(module, "BLOCK", block)
    rows = clumps(160)
    targets = unit(rows[:9] + 0.01)
    assert pick(rows, targets, count) == plain(rows, targets, count)
    copies = np.repeat(rows[:20], 8, axis=0)
    assert pick(copies, targets, count) == plain(copies, targets, count)


def test_its_rows_are_more_like_the_targets_than_a_sample():
    rows = clumps(1000, width=24, count=20)
    targets = clumps(1020, width=24, count=20)[1000:1003]
    samples = [np.random.default_rng(seed).permutation(1000)[:60] for seed in range(5)]
    likeness = [(rows[chosen] @ targets.T).max(1).mean() for chosen in [pick(rows, targets, 60), *samples]]
    assert likeness[0] > 2 * max(likeness[1:])


def test_no_target_is_served_alone():
    rows = np.concatenate([clumps(50, count=1, spread=0.05, seed=1), clumps(50, count=1, spread=0.3, seed=2)])
    picks = np.array(pick(rows, rows[[0, 50]], 20))
    assert (picks < 50).sum() == 10  # the second target's rows are all less like it than the first one's are


def test_an_empty_target_set_is_refused():
    with pytest.raises(ShrinkError, match="`targets` must hold at least one row, got none"):
        pick(clumps(10), np.empty((0, 12), dtype=np.float32), 2)
