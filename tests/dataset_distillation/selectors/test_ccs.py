import numpy as np
import pytest

from hf_shrink.dataset_distillation import SELECTORS, Candidates
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.selectors.noisy_rows import noisy_accuracy


def picks(difficulty, count, seed=0, **options):
    given = Candidates(len(difficulty), difficulty=np.asarray(difficulty, dtype=np.float32))
    return SELECTORS["ccs"].function(given, count, np.random.default_rng(seed), **options).rows


def by_bin(difficulty, rows, edges):
    return np.bincount(np.digitize(np.asarray(difficulty)[rows], edges), minlength=len(edges) + 1).tolist()


def test_small_bins_are_kept_whole_and_the_large_ones_share_the_rest():
    difficulty = np.repeat([0.05, 0.35, 0.65, 0.95], [2, 40, 10, 48])
    rows = picks(difficulty, 32, hardest_share=0.0, bins=4)
    # 2 of 2; then 30 over three bins is 10 of 10; then 20 over two
    assert by_bin(difficulty, rows, [0.2, 0.5, 0.8]) == [2, 10, 10, 10]
    rows = picks(difficulty, 62, hardest_share=0.0, bins=4)
    assert by_bin(difficulty, rows, [0.2, 0.5, 0.8]) == [2, 25, 10, 25]


def test_what_does_not_divide_goes_to_the_largest_bin():
    difficulty = np.repeat([0.0, 0.5, 1.0], [30, 20, 10])
    assert by_bin(difficulty, picks(difficulty, 11, hardest_share=0.0, bins=3), [0.3, 0.7]) == [4, 4, 3]


@pytest.mark.parametrize("bins", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_budget_is_met_exactly(bins, share):
    difficulty = np.random.default_rng(bins).lognormal(size=211)
    for count in (1, 2, 50, 150, 210, 211):
        rows = picks(difficulty, count, bins=bins, hardest_share=share)
        assert len(set(rows.tolist())) == count


def test_the_hardest_are_not_among_them():
    difficulty = np.arange(100)
    assert picks(difficulty, 20, hardest_share=0.3).max() == pytest.approx(69, abs=3)
    assert picks(difficulty, 70, hardest_share=0.3).max() == 69
    assert picks(difficulty, 80, hardest_share=0.3).max() == 79


def test_another_seed_draws_other_rows_of_the_same_bins():
    difficulty = np.random.default_rng(0).random(200)
    one, other = (picks(difficulty, 40, seed, hardest_share=0.0, bins=4) for seed in range(2))
    assert set(one.tolist()) != set(other.tolist())
    assert by_bin(difficulty, one, [0.25, 0.5, 0.75]) == [10, 10, 10, 10]


def test_rows_come_in_no_order_of_difficulty():
    """A prefix of what is kept must not be the easy rows."""
    difficulty = np.arange(1000)
    rows = picks(difficulty, 300, hardest_share=0.0)
    assert abs(rows[:100].mean() - rows.mean()) < 100


def test_outliers_take_no_more_than_themselves():
    """One row far from all others leaves the rest in one bin of 50; they still fill the budget."""
    difficulty = [*np.linspace(0, 1, 99), 1e6]
    assert len(picks(difficulty, 50, hardest_share=0.0)) == 50


def test_no_bins_are_refused():
    with pytest.raises(ShrinkError, match="`bins` must be at least 1, got 0"):
        picks(np.arange(5), 2, bins=0)


def test_with_wrong_labels_it_beats_a_sample_and_the_hardest_rows():
    found = noisy_accuracy("ccs", count=60)
    assert found > noisy_accuracy("random", count=60) + 0.03
    assert found > noisy_accuracy("el2n", count=60) + 0.3
