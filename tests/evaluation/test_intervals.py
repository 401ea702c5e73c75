import numpy as np
import pytest
from scipy.stats import norm

from hf_shrink.evaluation.intervals import bootstrap, mcnemar, wilson


@pytest.mark.parametrize(("right", "rows"), [(9, 10), (0, 20), (50, 50), (2867, 3080)])
def test_wilson_is_the_closed_form(right, rows):
    z, share = norm.ppf(0.975), right / rows
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    assert wilson(right, rows) == pytest.approx((max(centre - half, 0), min(centre + half, 1)), abs=1e-12)


def test_wilson_takes_numpy_integers():
    assert wilson(np.int64(9), 10) == wilson(9, 10)


def test_bootstrap_agrees_with_theory_and_pairs_the_models():
    draw = np.random.default_rng(0)
    first = draw.normal(size=400)
    second = first + 0.5  # every row is better by the same amount, however wide the spread of the rows

    def statistic(index):
        means = first[index].mean(), second[index].mean()
        return [*means, means[1] - means[0]]

    own, _, difference = bootstrap(statistic, 400)
    half = 1.96 * first.std() / 20
    assert own == pytest.approx((first.mean() - half, first.mean() + half), abs=0.02)
    assert difference == pytest.approx((0.5, 0.5), abs=1e-12)


def test_bootstrap_is_the_same_each_time_and_undefined_without_spread_of_rows():
    values = np.arange(30.0)
    assert bootstrap(lambda i: [values[i].mean()], 30) == bootstrap(lambda i: [values[i].mean()], 30)
    assert bootstrap(lambda i: [values[i].mean(), 0.0], 1) == [None, None]
    assert bootstrap(lambda i: [float("nan")], 30) == [None]


def test_mcnemar_counts_discordant_rows_only():
    both = np.ones(1000, dtype=bool)
    first = np.concatenate([both, [True] * 9, [False]])
    second = np.concatenate([both, [False] * 9, [True]])
    # P(at most 1 or at least 9 of 10 fair coins) = 2 * (1 + 10) / 1024
    assert mcnemar(first, second) == pytest.approx(22 / 1024)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar(first, first) == 1.0
