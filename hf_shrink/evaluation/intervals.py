"""Intervals and tests, through SciPy: how much of a difference is chance."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95


def wilson(right: int, rows: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share of independent rows (Wilson, 1927); holds also near 0 and 1, where the normal one fails.

    Args:
        right: Rows that are right.
        rows: All rows, at least 1.
        level: Confidence, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(int(right), int(rows)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], Sequence[float]],
    rows: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """Percentile intervals of numbers computed on rows drawn with replacement (Efron, 1979).

    Args:
        statistic: Row indices (N,) to K numbers. All K see the same rows, so that differences of models are paired.
        rows: N, the rows there are.
        level: Confidence, in (0, 1).
        resamples: Times that the rows are drawn.
        seed: Of the draws.

    Returns:
        K pairs of lower and upper end; None where fewer than 2 rows, or a resample without a value, leave it
            undefined.
    """
    from scipy import stats

    def on_resamples(index: NDArray[np.intp], axis: int) -> NDArray[np.float64]:
        drawn = np.moveaxis(index, axis, -1)
        values = [statistic(one) for one in drawn.reshape(-1, drawn.shape[-1])]
        return np.asarray(values, dtype=np.float64).T.reshape(-1, *drawn.shape[:-1])  # (K, resamples)

    if rows < 2:
        return [None] * len(statistic(np.arange(rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # becomes None below
        interval = stats.bootstrap(
            (np.arange(rows),),
            on_resamples,
            n_resamples=resamples,
            batch=50,
            vectorized=True,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    pairs = zip(np.atleast_1d(interval.low), np.atleast_1d(interval.high), strict=True)
    return [(float(low), float(high)) if np.isfinite([low, high]).all() else None for low, high in pairs]


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Whether two models are equally often right on the same rows (McNemar, 1947), exact.

    Args:
        first: Which rows the one got right, shape (N,).
        second: Which rows the other got right, shape (N,).

    Returns:
        Two-sided p-value; 1 where both are right on the same rows.
    """
    from scipy.stats import binomtest

    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
