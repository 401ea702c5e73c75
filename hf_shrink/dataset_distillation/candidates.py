"""What a selector is given, and what it hands back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidates:
    """Rows that a selector picks from: those of one stratum, or all of them.

    Args:
        size: N, the number of rows.
        embeddings: Shape (N, D), float32, each row of unit length; None for a selector that does not read them.
        difficulty: Shape (N,), float32, higher is harder; None for a selector that does not read it.
        targets: Shape (M, D), embeddings of the rows that matter; None for a selector that does not read them.
        labels: Shape (N, L), bool, the labels of rows that may have several; None for all others.
    """

    size: int
    embeddings: NDArray[np.float32] | None = None
    difficulty: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    labels: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Picks:
    """Rows that a selector picked.

    Args:
        rows: Shape (K,), positions among the candidates, the most valuable first, none twice.
        weights: Shape (K,), how many of the candidates each stands for, summing to N; None where all stand for alike.
        clusters: Shape (K,), the cluster that each was picked from; None without clusters.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    clusters: NDArray[np.int32] | None = None


def as_picks(rows: Any, weights: Any = None, clusters: Any = None) -> Picks:
    """Give picks the types that they travel in.

    Args:
        rows: Positions, in order.
        weights: One a position, or None.
        clusters: One a position, or None.

    Returns:
        The picks.
    """
    return Picks(
        np.asarray(rows, dtype=np.int64),
        None if weights is None else np.asarray(weights, dtype=np.float32),
        None if clusters is None else np.asarray(clusters, dtype=np.int32),
    )
