"""Wrong labels: how many there are is estimated from what a linear head says of rows that it was not fitted to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.discriminant import out_of_fold_probabilities
from hf_shrink.dataset_distillation.vectors import check_vectors
from hf_shrink.errors import ShrinkError

CONFIDENT = 0.2  # share of each class's rows that the noise is counted among
DIGITS = 9  # of a confidence; threads may change the ones behind, and with them the order of equal rows


@dataclass(frozen=True)
class LabelNoise:
    """What seems to be wrong among labels.

    Args:
        rate: Estimated share of wrong labels, in [0, 1].
        noisy: Shape (N,), True at the rows to cut: as many as the estimate says, the least confident first.
        confidence: Shape (N,), out-of-fold probability of each row's own label.
        suggested: Shape (N,), the label that the head finds likeliest.
    """

    rate: float
    noisy: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    suggested: NDArray[np.int64]


def find_label_noise(embeddings: Any, labels: Any, *, folds: int = 5, seed: int = 0) -> LabelNoise:
    """Estimate the share of wrong labels, and find them (confident learning, Northcutt et al., 2021).

    A row counts as confident where the head is surest: the surest fifth of the rows that it assigns to each class. The
    paper's thresholds, the mean confidence of each class, take a weak head's own errors for noise; at the surest rows
    it makes few, so that what disagrees there is the label's fault (Liu and Tao, 2016).

    Errors that gather in rows which are hard to tell apart are underestimated; noise above one half of a class cannot
    be told from the class itself, so that no class loses more than half of its rows.

    Args:
        embeddings: Shape (N, D).
        labels: Shape (N,), one class a row, of any type that sorts.
        folds: Parts, of which each is judged by a head that was fitted to the others; from 2 to N.
        seed: Of the parts.

    Returns:
        The estimate and the rows.

    Raises:
        ShrinkError: If the shapes do not fit, there is one class only, or the folds are out of range.
    """
    vectors = check_vectors(embeddings).astype(np.float64)
    labels = np.asarray(labels)
    if labels.shape != (len(vectors),):
        raise ShrinkError(
            f"`labels` must be one class for each of the {len(vectors)} embeddings, got shape {labels.shape}. Give "
            "the labels of the same rows."
        )
    classes, ids = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ShrinkError(f"`labels` must hold two classes or more, got {len(classes)}. Nothing could be confused.")
    if not 2 <= folds <= len(vectors):
        raise ShrinkError(f"`folds` must be in [2, {len(vectors)}] (the rows given), got {folds}. 5 is usual.")
    probabilities = out_of_fold_probabilities(vectors, ids, len(classes), folds=folds, seed=seed)
    confidence = np.round(probabilities[np.arange(len(ids)), ids], DIGITS)
    likeliest = probabilities.argmax(axis=1)
    rate = _rate(likeliest, np.round(probabilities.max(axis=1), DIGITS), ids)
    return LabelNoise(rate, _least_confident(confidence, ids, rate), confidence.astype(np.float32), classes[likeliest])


def _rate(likeliest: NDArray[np.int64], sureness: NDArray[np.float64], ids: NDArray[np.int64]) -> float:
    """Share of the surest rows whose label disagrees, each class weighed by the rows that are assigned to it."""
    order = np.lexsort((np.arange(len(ids)), -sureness, likeliest))
    wrong = 0.0
    for rows in np.split(order, np.flatnonzero(np.diff(likeliest[order])) + 1):
        surest = rows[: int(np.ceil(CONFIDENT * len(rows)))]
        wrong += len(rows) * float(np.mean(ids[surest] != likeliest[surest]))
    return wrong / len(ids)


def _least_confident(confidence: NDArray[np.float64], ids: NDArray[np.int64], rate: float) -> NDArray[np.bool_]:
    order = np.argsort(confidence, kind="stable")
    by_class = order[np.argsort(ids[order], kind="stable")]
    sizes = np.bincount(ids)
    place = np.empty(len(ids), np.int64)
    place[by_class] = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    allowed = place[order] < sizes[ids[order]] // 2
    noisy = np.zeros(len(ids), dtype=bool)
    noisy[order[allowed][: round(rate * len(ids))]] = True
    return noisy
