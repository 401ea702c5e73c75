import numpy as np
import pytest

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from tests.dataset_distillation.selectors.rows import clumps


def pick(rows, count, **options):
    given = Candidates(len(rows), rows)
    return SELECTORS["graph_cut"].function(given, count, np.random.default_rng(0), **options).rows.tolist()


def value(rows, chosen, count, redundancy=0.5):
    """The function that is maximised, from its definition."""
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    return cosines[chosen].sum() / len(rows) - redundancy * cosines[np.ix_(chosen, chosen)].sum() / count


def plain(rows, count, redundancy):
    found = []
    for _ in range(count):
        left = [row for row in range(len(rows)) if row not in found]
        found.append(max(left, key=lambda row: value(rows, [*found, row], count, redundancy)))
    return found


@pytest.mark.parametrize("redundancy", [0, 0.5, 2])
def test_the_picks_are_those_of_trying_every_row(redundancy):
    rows = clumps(60)
    assert pick(rows, 8, redundancy=redundancy) == plain(rows, 8, redundancy)


def test_without_redundancy_the_rows_nearest_to_the_mean_are_kept():
    rows = clumps(100)
    assert sorted(pick(rows, 10, redundancy=0)) == sorted((-(rows @ rows.mean(0))).argsort()[:10].tolist())


def test_the_more_redundancy_counts_the_less_alike_the_picks_are():
    rows = clumps(500, width=24, count=10)
    alike = [(rows[p] @ rows[p].T).mean() for p in (pick(rows, 20, redundancy=value) for value in (0, 0.5))]
    assert alike[1] < 0.5 * alike[0]


def test_its_value_is_higher_than_that_of_a_sample():
    rows = clumps(500, width=24, count=10)
    samples = [np.random.default_rng(seed).permutation(500)[:30] for seed in range(5)]
    assert value(rows, pick(rows, 30), 30) > max(value(rows, sample, 30) for sample in samples)


@pytest.mark.parametrize("redundancy", [-1, float("nan"), float("inf")])
def test_redundancy_out_of_range_is_refused(redundancy):
    with pytest.raises(ShrinkError, match="`redundancy` must be at least 0"):
        pick(clumps(10), 2, redundancy=redundancy)
