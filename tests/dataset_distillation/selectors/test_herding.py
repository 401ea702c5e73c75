import numpy as np
import pytest

from hf_shrink.dataset_distillation import SELECTORS, Candidates
from tests.dataset_distillation.selectors.rows import clumps, unit


def pick(rows, count):
    return SELECTORS["herding"].function(Candidates(len(rows), rows), count, np.random.default_rng(0)).rows.tolist()


def plain(rows, count):
    """Try every row for every pick, in fp64."""
    rows = rows.astype(np.float64)
    found = []
    for _ in range(count):
        means = (rows[found].sum(0) + rows) / (len(found) + 1)
        distances = np.linalg.norm(rows.mean(0) - means, axis=1)
        distances[found] = np.inf
        found.append(int(distances.argmin()))
    return found


def drift(rows, chosen):
    return np.linalg.norm(rows[chosen].mean(0) - rows.mean(0))


def test_the_second_pick_makes_up_for_the_first():
    degrees = np.radians([0, 40, 50, 100])
    rows = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    assert pick(rows, 2) == [2, 1]  # the mean points to 47.4 degrees: 50 is the nearest, and 45 that of 50 and 40


@pytest.mark.parametrize("seed", range(4))
def test_the_picks_are_those_of_trying_every_row(seed):
    rows = clumps(200, seed=seed)
    assert pick(rows, 15) == plain(rows, 15)


def test_its_mean_is_nearer_than_that_of_a_sample():
    rows = clumps(500, width=24, count=5)
    samples = [np.random.default_rng(seed).permutation(500)[:25] for seed in range(10)]
    assert drift(rows, pick(rows, 25)) < 0.3 * min(drift(rows, sample) for sample in samples)


def test_each_prefix_is_a_choice_by_itself():
    rows = clumps(300)
    assert pick(rows, 40)[:12] == pick(rows, 12)


def test_the_row_nearest_to_the_mean_is_not_picked_again_and_again():
    rows = unit(np.array([[1, 0], [1, 1.0], [0, 1]]))
    assert pick(rows, 3)[0] == 1
    assert sorted(pick(rows, 3)) == [0, 1, 2]
