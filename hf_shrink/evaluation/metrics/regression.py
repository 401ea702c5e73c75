"""Metrics on numbers, through SciPy and scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hf_shrink.evaluation.metrics import METRICS

TASKS = ("regression",)
SCIPY = "https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats."
SKLEARN = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics."


@METRICS.add("pearson", paper=SCIPY + "pearsonr.html", tasks=TASKS, higher_is_better=True, percent=False, trials=())
def pearson(predictions: Any, references: Any) -> float:
    """Linear correlation; the mean over the columns where there are several.

    Args:
        predictions: Numbers, shape (N,) or (N, C).
        references: The same shape.

    Returns:
        Correlation in [-1, 1]; NaN where either is constant.
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references)


@METRICS.add("spearman", paper=SCIPY + "spearmanr.html", tasks=TASKS, higher_is_better=True, percent=False, trials=())
def spearman(predictions: Any, references: Any) -> float:
    """Correlation of the ranks; the mean over the columns where there are several.

    Args:
        predictions: Numbers, shape (N,) or (N, C).
        references: The same shape.

    Returns:
        Correlation in [-1, 1]; NaN where either is constant.
    """
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references)


@METRICS.add(
    "mse", paper=SKLEARN + "mean_squared_error.html", tasks=TASKS, higher_is_better=False, percent=False, trials=()
)
def mse(predictions: Any, references: Any) -> float:
    """Mean squared error.

    Args:
        predictions: Numbers, shape (N,) or (N, C).
        references: The same shape.

    Returns:
        At least 0, in the label's unit squared.
    """
    from sklearn.metrics import mean_squared_error

    return float(mean_squared_error(references, predictions))


@METRICS.add(
    "mae", paper=SKLEARN + "mean_absolute_error.html", tasks=TASKS, higher_is_better=False, percent=False, trials=()
)
def mae(predictions: Any, references: Any) -> float:
    """Mean absolute error.

    Args:
        predictions: Numbers, shape (N,) or (N, C).
        references: The same shape.

    Returns:
        At least 0, in the label's unit.
    """
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(references, predictions))


def _correlation(function: Callable[[Any, Any], Any], predictions: Any, references: Any) -> float:
    found = np.asarray(predictions, dtype=np.float64)
    wanted = np.asarray(references, dtype=np.float64)
    found, wanted = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)  # (N, C)
    if len(found) < 2 or (np.ptp(found, axis=0) == 0).any() or (np.ptp(wanted, axis=0) == 0).any():
        return float("nan")
    return float(np.mean([function(found[:, c], wanted[:, c]).statistic for c in range(found.shape[1])]))
