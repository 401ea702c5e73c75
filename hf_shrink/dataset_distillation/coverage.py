"""How well picks cover the rows that they were picked from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Coverage:
    """Cosine distance of every row to the pick nearest to it.

    Args:
        mean: Over all rows.
        radius: The largest: no row is further from a pick.
    """

    mean: float
    radius: float


def measure_coverage(embeddings: NDArray[np.float32], picks: NDArray[np.int64]) -> Coverage:
    """Measure how near picks are to all rows.

    Args:
        embeddings: Shape (N, D), unit length.
        picks: Shape (K,), positions.

    Returns:
        Mean and radius, both in [0, 2].
    """
    chosen = embeddings[picks].T
    nearest = [
        (embeddings[start : start + ROWS_AT_ONCE] @ chosen).max(axis=1)
        for start in range(0, len(embeddings), ROWS_AT_ONCE)
    ]
    distance = np.maximum(1 - np.concatenate(nearest), 0)
    return Coverage(float(distance.mean()), float(distance.max()))


def class_drift(all_ids: NDArray[np.int64], picked_ids: NDArray[np.int64]) -> float:
    """How far the picks' classes are from those of all rows.

    Args:
        all_ids: Shape (N,), class ids.
        picked_ids: Shape (K,), class ids.

    Returns:
        Total variation distance in [0, 1]: the share of the picks that would have to change class.
    """
    classes = max(int(all_ids.max()), int(picked_ids.max())) + 1
    before = np.bincount(all_ids, minlength=classes) / len(all_ids)
    after = np.bincount(picked_ids, minlength=classes) / len(picked_ids)
    return float(np.abs(before - after).sum() / 2)
