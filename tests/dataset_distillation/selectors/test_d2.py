import importlib

import numpy as np
import pytest

from hf_shrink.dataset_distillation import SELECTORS, Candidates
from hf_shrink.dataset_distillation.grid import STEPS, on_grid
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.selectors.noisy_rows import noisy_accuracy
from tests.dataset_distillation.selectors.rows import clumps

module = importlib.import_module("hf_shrink.dataset_distillation.selectors.d2")


def picks(rows, difficulty, count, **options):
    given = Candidates(len(rows), rows, np.asarray(difficulty, dtype=np.float32))
    options = {"hardest_share": 0.0, **options}
    return SELECTORS["d2"].function(given, count, np.random.default_rng(0), **options).rows.tolist()


def plain(rows, difficulty, count, neighbours=10, forward=1.0, reverse=1.0, floor=0.0):
    """The paper's two passes as they are written down, in fp64, on the grid that makes products exact."""
    grid, difficulty = on_grid(rows).astype(np.float64), np.asarray(difficulty, dtype=np.float32).astype(np.float64)
    distance = 2 - 2 * (grid @ grid.T) / STEPS**2
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1, kind="stable")[:, :neighbours]
    start = (difficulty - difficulty.min()) / (difficulty.max() - difficulty.min())
    sums = [sum(np.exp(-forward * distance[i, j]) * start[j] for j in near[i]) for i in range(len(rows))]
    worth, found = start + sums, []
    for _ in range(count):
        best = max(set(range(len(rows))) - set(found), key=lambda row: (worth[row], -row))
        for j in near[best]:
            worth[j] -= np.exp(-reverse * distance[best, j]) * max(worth[best], floor)
        found.append(best)
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"forward": 0.2, "reverse": 3.0}, {"neighbours": 1}, {"neighbours": 30}])
def test_the_picks_are_those_of_the_plain_algorithm(monkeypatch, seed, options):
    monkeypatch.setattr(module, "BLOCK", 32)
    rows, difficulty = clumps(150, seed=seed), np.random.default_rng(seed).random(150)
    assert picks(rows, difficulty, 120, **options) == plain(rows, difficulty, 120, **options)


def test_what_is_used_up_does_not_raise_its_neighbours():
    """Without a floor a worth below 0 would be handed on with its sign turned round, and grow from pick to pick."""
    rows, difficulty = clumps(150), np.random.default_rng(0).random(150)
    unbounded = plain(rows, difficulty, 150, floor=-np.inf)
    assert picks(rows, difficulty, 150) == plain(rows, difficulty, 150) != unbounded


def test_a_picked_row_puts_off_those_next_to_it():
    """Two pairs of copies, the first pair harder: each pair gives one row before one gives its second."""
    rows = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    assert picks(rows, [0.9, 1.0, 0.5, 0.4], 2, neighbours=1) == [0, 2]
    assert picks(rows, [0.9, 1.0, 0.5, 0.4], 2, neighbours=1, reverse=1e9) == [0, 2]  # at distance 0 any rate is one


def test_far_neighbours_take_less_the_faster_the_rate():
    angles = np.radians([0, 30, 120, 150])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert picks(rows, [1.0, 0.9, 0.5, 0.0], 2, neighbours=1, reverse=0.0)[1] == 2
    assert picks(rows, [1.0, 0.9, 0.5, 0.0], 2, neighbours=1, reverse=50.0)[1] == 1


def test_copies_of_a_row_do_not_hide_the_rest():
    rows = np.concatenate([np.repeat(np.eye(5, dtype=np.float32)[:1], 8, axis=0), np.eye(5, dtype=np.float32)[1:]])
    assert sorted(picks(rows, np.ones(12), 5)) == [0, 8, 9, 10, 11]


def test_more_neighbours_than_rows_are_as_many_as_there_are():
    rows = clumps(6)
    assert picks(rows, np.arange(6), 3, neighbours=50) == picks(rows, np.arange(6), 3, neighbours=5)


def test_blocks_change_nothing(monkeypatch):
    rows, difficulty = clumps(300), np.random.default_rng(0).random(300)
    whole = picks(rows, difficulty, 80)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert picks(rows, difficulty, 80) == whole


@pytest.mark.parametrize("argument", ["forward", "reverse"])
def test_a_rate_below_0_is_refused(argument):
    with pytest.raises(ShrinkError, match=f"`{argument}` must be 0 or above, got -1"):
        picks(clumps(5), np.arange(5), 2, **{argument: -1})


def test_embeddings_that_were_not_given_are_said():
    given = Candidates(3, difficulty=np.ones(3, dtype=np.float32))
    with pytest.raises(ShrinkError, match="`embeddings` must be given"):
        SELECTORS["d2"].function(given, 2, np.random.default_rng(0))


def test_with_wrong_labels_it_beats_a_sample_and_the_hardest_rows():
    found = noisy_accuracy("d2", count=60)
    assert found > noisy_accuracy("random", count=60) + 0.03
    assert found > noisy_accuracy("el2n", count=60) + 0.3
