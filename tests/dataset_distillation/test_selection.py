import numpy as np
import pytest

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.candidates import as_picks
from hf_shrink.dataset_distillation.selection import select_rows
from tests.dataset_distillation.clusters import pool

COUNTS = np.array([12, 6, 3, 1])


def lowest(candidates, count, generator):
    return as_picks(np.arange(count))


def test_each_stratum_gives_what_it_was_asked_for():
    rows = pool()
    picks = select_rows(rows, COUNTS, "kmeans")
    assert np.bincount(rows.strata.ids[picks.rows]).tolist() == COUNTS.tolist()
    assert len(np.unique(picks.rows)) == 22


def test_every_beginning_holds_the_strata_in_proportion():
    rows = pool()
    ids = rows.strata.ids[select_rows(rows, COUNTS, "stratified").rows]
    for end in range(1, 23):
        there = np.bincount(ids[:end], minlength=4)
        assert np.abs(there - COUNTS * end / 22).max() <= 1


def test_a_pick_stands_for_the_rows_near_it_and_all_weights_average_to_one():
    rows = pool()
    picks = select_rows(rows, COUNTS, lowest)
    assert picks.weights.mean() == pytest.approx(1)
    shares = rows.strata.sizes / COUNTS
    assert picks.weights[rows.strata.ids[picks.rows] == 3] == pytest.approx(shares[3] * 22 / 600)
    assert select_rows(rows, COUNTS, "kmeans").weights.std() > 0.1


def test_clusters_of_different_strata_are_different():
    rows = pool()
    picks = select_rows(rows, COUNTS, "kmeans")
    assert picks.clusters.dtype == np.int32
    assert len(np.unique(picks.clusters)) == 22


def test_what_one_stratum_gives_does_not_hang_on_the_others():
    rows = pool()
    both = select_rows(rows, np.array([5, 5, 5, 5]), "stratified")
    fewer = select_rows(rows, np.array([2, 5, 1, 5]), "stratified")
    ids = rows.strata.ids
    assert both.rows[ids[both.rows] == 1].tolist() == fewer.rows[ids[fewer.rows] == 1].tolist()


@pytest.mark.parametrize(
    "own",
    [
        lambda candidates, count, generator: as_picks(np.arange(count + 1)),
        lambda candidates, count, generator: as_picks(np.zeros(count)),
        lambda candidates, count, generator: as_picks(np.arange(count) + candidates.size),
        lambda candidates, count, generator: np.arange(count),
    ],
)
def test_a_selector_that_returns_something_else_is_refused(own):
    with pytest.raises(ShrinkError, match="`method` must return Picks of 12 different rows"):
        select_rows(pool(), COUNTS, own)
