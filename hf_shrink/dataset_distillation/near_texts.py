"""Pairs of texts whose shingles overlap: none below the threshold, and with `prefix_features` none missed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hf_shrink.dataset_distillation.near_pairs import Pairs, join_pairs

COST = 10**7  # candidate pairs that are held at once
CHUNK = 10**5  # pairs that are compared at once


def prefix_features(sets: csr_matrix, threshold: float) -> csr_matrix:
    """Keep so many of each text's rarest shingles that two near texts share one of them (Xiao et al., 2008).

    Texts of Jaccard similarity t share at least t times as many shingles as the larger one has. If they shared none of
    the 1 + (1 - t) n rarest ones, too few would be left.

    Args:
        sets: Shape (N, S), 1 where a text holds a shingle.
        threshold: The least similarity t, in (0, 1].

    Returns:
        Shape (N, S), 1 at the shingles that are kept.
    """
    sizes = np.diff(sets.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    by_rarity = np.argsort(np.bincount(sets.indices, minlength=sets.shape[1]), kind="stable")
    rarity = np.empty_like(by_rarity)
    rarity[by_rarity] = np.arange(len(by_rarity))
    keys = np.sort(rows.astype(np.uint64) << np.uint64(32) | rarity[sets.indices].astype(np.uint64))
    place = np.arange(len(keys)) - np.repeat(sets.indptr[:-1], sizes)
    kept = place < (sizes - np.ceil(threshold * sizes - 1e-9) + 1)[rows]
    columns = by_rarity[(keys[kept] & np.uint64(2**32 - 1)).astype(np.int64)]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(sizes)))])
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=sets.shape)


class NearTexts:
    """Texts as sets of shingles: those that share a rare one are compared by all that they have.

    Args:
        sets: Shape (N, S), 1 where a text holds a shingle; a text that holds none is near no other.
        threshold: The least Jaccard similarity of a pair, in (0, 1].
        features: Shape (N, F), what near texts share one of; None takes what misses no pair.
    """

    def __init__(self, sets: csr_matrix, threshold: float, features: csr_matrix | None = None) -> None:
        self._sets, self._sizes, self._threshold = sets, np.diff(sets.indptr), threshold
        self._features = prefix_features(sets, threshold) if features is None else features

    def __len__(self) -> int:
        return len(self._sizes)

    def pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Pairs:
        """Find who is near whom.

        Args:
            left: Positions of texts.
            right: Positions of texts.

        Returns:
            Positions of one of each and their similarity, at least the threshold; no text is paired with itself.
        """
        return join_pairs(self._near(*candidates) for candidates in self._candidates(left, right))

    def _candidates(
        self, left: NDArray[np.int64], right: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        others = self._features[right]
        costs = self._features[left] @ np.bincount(others.indices, minlength=others.shape[1])
        others = others.T.tocsr()
        blocks = (np.cumsum(costs) // COST).astype(np.int64)
        for rows in np.split(left, np.flatnonzero(np.diff(blocks)) + 1):
            shared = (self._features[rows] @ others).tocoo()
            i, j = rows[shared.row], right[shared.col]
            small, large = np.minimum(self._sizes[i], self._sizes[j]), np.maximum(self._sizes[i], self._sizes[j])
            likely = (i != j) & (small / large >= self._threshold)  # as alike as they could be
            yield i[likely], j[likely]

    def _near(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
        similarity = np.zeros(len(i))
        for start in range(0, len(i), CHUNK):
            part = slice(start, start + CHUNK)
            similarity[part] = self._jaccard(i[part], j[part])
        near = similarity >= self._threshold
        return i[near], j[near], similarity[near]

    def _jaccard(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        common = np.asarray(self._sets[i].multiply(self._sets[j]).sum(axis=1), dtype=np.float64).ravel()
        return common / (self._sizes[i] + self._sizes[j] - common)
