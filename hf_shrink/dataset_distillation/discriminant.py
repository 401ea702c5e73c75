"""A linear head in closed form, and what it says of rows that it was not fitted to."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.folds import deal


def out_of_fold_probabilities(
    vectors: NDArray[np.float64], ids: NDArray[np.int64], classes: int, *, folds: int, seed: int
) -> NDArray[np.float64]:
    """Ask a linear head about each row that was fitted to the others.

    Args:
        vectors: Shape (N, D).
        ids: Shape (N,), classes in [0, C).
        classes: C.
        folds: Parts, of which each is judged by a head that was fitted to the others; from 2 to N.
        seed: Of the parts.

    Returns:
        Shape (N, C); 0 for a class that no row of the other parts has.
    """
    parts = deal(ids, folds, seed)
    scores = np.empty((len(ids), classes))
    for part in range(folds):
        held = parts == part
        scores[held] = _discriminant(vectors[~held], ids[~held], classes, vectors[held])
    return _softmax(scores * _scale(scores, ids))


def _discriminant(
    vectors: NDArray[np.float64], ids: NDArray[np.int64], classes: int, others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Linear discriminant analysis with a shrunken covariance: a linear head in closed form."""
    from scipy.linalg import solve
    from scipy.sparse import csr_matrix

    rows, width = vectors.shape
    counts = np.bincount(ids, minlength=classes)
    members = csr_matrix((np.ones(rows), (ids, np.arange(rows))), shape=(classes, rows))
    means = (members @ vectors) / np.maximum(counts, 1)[:, None]  # (C, D)
    spread = vectors - means[ids]
    covariance = spread.T @ spread / rows
    shrinkage = width / (width + rows)  # the fewer the rows, the less their covariance says
    diagonal = shrinkage * max(np.trace(covariance) / width, 1e-12)  # above 0 where all rows of a class are equal
    covariance = (1 - shrinkage) * covariance + diagonal * np.eye(width)
    weights = solve(covariance, means.T, assume_a="pos")  # (D, C)
    scores = others @ weights - 0.5 * (means.T * weights).sum(axis=0) + np.log(np.maximum(counts, 1) / rows)
    scores[:, counts == 0] = -np.inf
    return scores


def _scale(scores: NDArray[np.float64], ids: NDArray[np.int64]) -> float:
    """The factor that makes the scores predict the labels best: a head is too sure of rows it was not fitted to."""
    from scipy.optimize import minimize_scalar

    own = scores[np.arange(len(ids)), ids]
    known = np.isfinite(own)  # a class that stands in one part only has no score there

    def loss(exponent: float) -> float:
        scaled = scores[known] * np.exp(exponent)
        top = scaled.max(axis=1)
        return float(np.mean(top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - own[known] * np.exp(exponent)))

    return float(np.exp(minimize_scalar(loss, bounds=(-7, 5), method="bounded", options={"xatol": 1e-3}).x))


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
