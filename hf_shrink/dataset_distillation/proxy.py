"""A linear head on embeddings: cheap enough to be trained many times, and near to what fine-tuning would tell."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.strata import Strata

STRENGTH = 10.0  # inverse of the L2 penalty: vectors of unit length need weights that are large
ITERATIONS = 100
TITLES = {"classes": "accuracy", "labels": "micro F1", "values": "R²"}


def head_score(
    embeddings: NDArray[np.float32], strata: Strata, train: NDArray[np.int64], test: NDArray[np.int64]
) -> float:
    """Train a head on some rows and ask it about others.

    Args:
        embeddings: Shape (N, D).
        strata: What the rows' labels say; not of kind "none".
        train: Rows to learn from.
        test: Rows to be asked about.

    Returns:
        Accuracy for classes, micro F1 for rows with several labels, R² for numbers; higher is better.
    """
    if strata.values is not None:
        return _ridge_score(embeddings, strata.values, train, test)
    if strata.labels is not None:
        return _labels_score(embeddings, strata.labels, train, test)
    return float((_predict(embeddings, strata.ids, train, test) == strata.ids[test]).mean())


def _predict(x: NDArray[Any], y: NDArray[Any], train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[Any]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y[train])) == 1:
        return np.full(len(test), y[train][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # all arms stop after as many steps
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # one row a class is a budget
        return LogisticRegression(C=STRENGTH, max_iter=ITERATIONS).fit(x[train], y[train]).predict(x[test])


def _labels_score(x: NDArray[Any], y: NDArray[np.bool_], train: NDArray[np.int64], test: NDArray[np.int64]) -> float:
    found = np.stack([_predict(x, column, train, test) for column in y.T], axis=1)
    right = (found & y[test]).sum()
    marked = found.sum() + y[test].sum()
    return float(2 * right / marked) if marked else 1.0


def _ridge_score(x: NDArray[Any], y: NDArray[np.float64], train: NDArray[np.int64], test: NDArray[np.int64]) -> float:
    from sklearn.linear_model import Ridge

    return float(Ridge(alpha=1 / STRENGTH).fit(x[train], y[train]).score(x[test], y[test]))
