"""Pairs of texts whose shingles overlap: none below the threshold, and with `prefix_features` none missed."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hf_shrink.dataset_distillation.near_pairs import Pairs, join_pairs
from hf_shrink.dataset_distillation.shingles import SIZE, Unit, shingle_sets

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
    frequency = np.bincount(sets.indices, minlength=sets.shape[1])
    order = np.lexsort((sets.indices, frequency[sets.indices], rows))  # in each row the rarest first
    place = np.arange(len(order)) - np.repeat(sets.indptr[:-1], sizes)
    kept = place < (sizes - np.ceil(threshold * sizes - 1e-9) + 1)[rows]
    columns = sets.indices[order][kept]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=len(sizes)))])
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=sets.shape)


class NearTexts:
    """Texts, of which those that share a feature are compared by all their shingles.

    Args:
        texts: N normalised texts.
        threshold: The least Jaccard similarity of a pair, in (0, 1].
        features: Shape (N, F), not zero where a text has a feature; None takes those that miss no pair.
        unit: What a shingle is a run of.
        size: How many of them.
    """

    def __init__(
        self,
        texts: Sequence[str],
        threshold: float,
        *,
        features: csr_matrix | None = None,
        unit: Unit = "characters",
        size: int = SIZE,
    ) -> None:
        self.texts, self.threshold, self.unit, self.size = texts, threshold, unit, size
        self._sets: csr_matrix | None = None
        if features is None:
            self._sets = shingle_sets(texts, unit, size)
            features = prefix_features(self._sets, threshold)
        self.features = features

    def __len__(self) -> int:
        return len(self.texts)

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
        others = self.features[right]
        costs = self.features[left] @ np.bincount(others.indices, minlength=others.shape[1])
        others = others.T.tocsr()
        blocks = (np.cumsum(costs) // COST).astype(np.int64)
        for rows in np.split(left, np.flatnonzero(np.diff(blocks)) + 1):
            shared = (self.features[rows] @ others).tocoo()
            i, j = rows[shared.row], right[shared.col]
            yield i[i != j], j[i != j]

    def _near(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
        similarity = np.zeros(len(i))
        for start in range(0, len(i), CHUNK):
            part = slice(start, start + CHUNK)
            similarity[part] = self._jaccard(i[part], j[part])
        near = similarity >= self.threshold
        return i[near], j[near], similarity[near]

    def _jaccard(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        if self._sets is None:
            rows, places = np.unique(np.concatenate([i, j]), return_inverse=True)
            sets = shingle_sets([self.texts[row] for row in rows], self.unit, self.size)
            i, j = places[: len(i)], places[len(i) :]
        else:
            sets = self._sets
        sizes = np.diff(sets.indptr)
        common = np.asarray(sets[i].multiply(sets[j]).sum(axis=1), dtype=np.float64).ravel()
        return common / (sizes[i] + sizes[j] - common)
