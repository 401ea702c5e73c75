"""Pairs of rows that are near each other, and what finds them."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class Near(Protocol):
    """What finds pairs among rows."""

    def __len__(self) -> int: ...

    def pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Pairs:
        """Find who is near whom.

        Args:
            left: Positions.
            right: Positions.

        Returns:
            Positions of one of each and their similarity; no row is paired with itself.
        """
        ...


def join_pairs(parts: Iterable[Pairs]) -> Pairs:
    """Put pairs one after the other.

    Args:
        parts: Any number of them, also none.

    Returns:
        All pairs.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), *parts]
    i, j, similarity = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return i, j, similarity


def best_partners(pairs: Pairs) -> Pairs:
    """The most similar partner of each row, the lower position where two are.

    Args:
        pairs: Rows, their partners, and how alike they are.

    Returns:
        Each row once, in order.
    """
    i, j, similarity = pairs
    order = np.lexsort((j, -similarity, i))
    rows, first = np.unique(i[order], return_index=True)
    return rows, j[order][first], similarity[order][first]
