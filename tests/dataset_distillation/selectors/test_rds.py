import numpy as np
import pytest

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from hf_shrink.dataset_distillation.grid import on_grid
from tests.dataset_distillation.selectors.rows import clumps, unit


def pick(rows, targets, count):
    return SELECTORS["rds"].function(Candidates(len(rows), rows, targets=targets), count, np.random.default_rng(0))


def by_hand(rows, targets, count):
    """Each target in turn takes the row most like it of those that are left, in whole numbers."""
    alike = on_grid(targets).astype(np.int64) @ on_grid(rows).T.astype(np.int64)
    found = []
    for number in range(count):
        wish = alike[number % len(targets)].copy()
        wish[found] = -(2**60)
        found.append(int(wish.argmax()))
    return found


def test_targets_take_turns():
    rows = unit(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.3, 1]]))
    picks = pick(rows, unit(np.array([[1, 0], [0, 1.0]])), 4)
    assert picks.rows.tolist() == [0, 3, 1, 4]
    assert picks.clusters.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_the_picks_are_those_of_asking_each_target(seed):
    rows = clumps(206, seed=seed)
    assert pick(rows[6:], rows[:6], 60).rows.tolist() == by_hand(rows[6:], rows[:6], 60)


def test_they_are_nearer_to_the_targets_than_a_sample():
    rows = clumps(500, width=24, count=8)
    targets, rows = rows[:3], rows[3:]
    chosen = (rows[pick(rows, targets, 30).rows] @ targets.T).max(1).mean()
    sample = (rows[np.random.default_rng(0).permutation(len(rows))[:30]] @ targets.T).max(1).mean()
    assert chosen > sample + 0.2


def test_a_rare_target_gets_its_share():
    rows = unit(np.concatenate([np.tile([[1, 0]], (50, 1)), np.tile([[0.6, 1]], (5, 1))]) + 0.0)
    picks = pick(rows, unit(np.array([[1, 0], [1, 0.01], [1, 0.02], [0.0, 1]])), 8)
    assert (picks.rows >= 50).sum() == 2  # a quarter of the turns, though each of these rows is less like its target


@pytest.mark.parametrize("targets", [None, np.zeros((0, 2), np.float32), np.ones((2, 3), np.float32)])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(ShrinkError, match="`targets` must be rows of 2 columns"):
        pick(unit(np.array([[1, 0], [0, 1.0]])), targets, 1)
