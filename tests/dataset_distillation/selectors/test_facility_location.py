import importlib

import numpy as np
import pytest

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from hf_shrink.dataset_distillation.grid import on_grid
from tests.dataset_distillation.selectors.rows import clumps, unit

module = importlib.import_module("hf_shrink.dataset_distillation.selectors.facility_location")


def pick(rows, count, **options):
    given = Candidates(len(rows), rows)
    return SELECTORS["facility_location"].function(given, count, np.random.default_rng(0), **options)


def plain(rows, count):
    """The greedy algorithm as it is written down: every gain anew for every pick."""
    similarity = np.maximum(on_grid(rows).astype(np.int64) @ on_grid(rows).astype(np.int64).T, 0)
    best, found = np.zeros(len(rows), dtype=np.int64), []
    for _ in range(count):
        gains = np.maximum(similarity - best, 0).sum(1)
        gains[found] = -1
        found.append(int(gains.argmax()))
        best = np.maximum(best, similarity[found[-1]])
    return found


def objective(rows, chosen):
    return np.maximum(rows @ rows[chosen].T, 0).max(1).sum()


def random_objective(rows, count):
    generator = np.random.default_rng(0)
    return np.mean([objective(rows, generator.permutation(len(rows))[:count]) for _ in range(5)])


def test_three_directions():
    rows = unit(np.array([[1, 0, 0], [1, 0.1, 0], [1, 0, 0.1], [0, 1, 0], [0, 1, 0.2], [0, 0, 1.0]]))
    picks = pick(rows, 3)
    # the row that is like two others comes first; of 3 and 4, the one that is like 5 as well; then what is left
    assert picks.rows.tolist() == plain(rows, 3)
    assert sorted(picks.weights.tolist()) == [1, 2, 3]
    assert picks.weights[0] == 3


@pytest.mark.parametrize("neighbours", [None, 300])
@pytest.mark.parametrize("seed", range(3))
def test_the_picks_are_those_of_the_greedy_algorithm(neighbours, seed):
    rows = clumps(300, seed=seed)
    assert pick(rows, 60, neighbours=neighbours).rows.tolist() == plain(rows, 60)


def test_a_row_stands_for_those_that_are_most_similar_to_it():
    rows = clumps(400)
    picks = pick(rows, 30)
    owners = (on_grid(rows) @ on_grid(rows)[picks.rows].T).argmax(1)
    assert picks.weights.tolist() == np.bincount(owners, minlength=30).tolist()
    few = pick(rows, 30, neighbours=10)
    owners = (on_grid(rows) @ on_grid(rows)[few.rows].T).argmax(1)
    assert few.weights.tolist() == np.bincount(owners, minlength=30).tolist()


def test_neighbours_are_nearly_as_good_as_all_similarities():
    rows = clumps(3000, width=24, count=30)
    low, exact = random_objective(rows, 150), objective(rows, pick(rows, 150).rows)
    assert low < exact
    assert objective(rows, pick(rows, 150, neighbours=64).rows) - low > 0.97 * (exact - low)


def test_more_rows_than_are_held_at_once_are_picked_by_neighbours(monkeypatch):
    rows = clumps(300)
    monkeypatch.setattr(module, "DENSE", 200)
    monkeypatch.setattr(module, "NEIGHBOURS", 20)
    assert pick(rows, 30).rows.tolist() == pick(rows, 30, neighbours=20).rows.tolist()


def test_the_stochastic_optimizer_looks_at_fewer_rows_and_loses_little():
    rows = clumps(2000, width=24, count=30)
    low, exact = random_objective(rows, 100), objective(rows, pick(rows, 100).rows)
    for neighbours in (None, 64):
        found = pick(rows, 100, optimizer="stochastic", neighbours=neighbours)
        assert found.rows.tolist() != pick(rows, 100, neighbours=neighbours).rows.tolist()
        assert objective(rows, found.rows) - low > 0.8 * (exact - low)


def test_where_epsilon_is_tiny_the_stochastic_optimizer_looks_at_all_rows():
    rows = clumps(200)
    assert pick(rows, 20, optimizer="stochastic", epsilon=1e-9).rows.tolist() == plain(rows, 20)


def test_opposite_rows_count_as_unlike_not_as_less():
    rows = unit(np.array([[1, 0.1], [1, -0.1], [1, 0], [-1, 0.0]]))
    assert pick(rows, 2).rows.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "greedy"}, '`optimizer` must be "lazy" or "stochastic", got \'greedy\''),
        ({"neighbours": 0}, "`neighbours` must be at least 1, got 0"),
        ({"epsilon": 0}, r"`epsilon` must be in \(0, 1\), got 0"),
        ({"epsilon": float("nan")}, r"`epsilon` must be in \(0, 1\), got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ShrinkError, match=message):
        pick(clumps(10), 2, **options)
