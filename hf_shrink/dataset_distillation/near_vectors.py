"""Pairs of embeddings whose cosine reaches a threshold: all of them, by blocks of one matrix product."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.near_pairs import Pairs, join_pairs

BLOCK = (1024, 16_384)  # cosines that are held at once, 64 MB
CHUNK = 8192  # pairs that are computed again at once
DIGITS = 7  # of a cosine; what lies behind is the rounding of embeddings in float32
ROUNDING = 2.0**-24  # of one float32 operation


class NearVectors:
    """Embeddings, compared by their cosine.

    The blocks are products in float32. Whatever comes within their rounding of the threshold is computed again in
    float64, so that neither the library nor its threads decide over a pair, and none is missed.

    Args:
        vectors: Shape (N, D), unit length.
        threshold: The least cosine of a pair, in (0, 1].
    """

    def __init__(self, vectors: NDArray[np.float32], threshold: float) -> None:
        self.vectors, self.threshold = vectors, threshold
        self._margin = 1e-6 + ROUNDING * vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Pairs:
        """Find who is near whom.

        Args:
            left: Positions of vectors.
            right: Positions of vectors.

        Returns:
            Positions of one of each and their cosine, at least the threshold; no vector is paired with itself.
        """
        found = []
        for start in range(0, len(left), BLOCK[0]):
            rows = left[start : start + BLOCK[0]]
            mine = self.vectors[rows]
            for other in range(0, len(right), BLOCK[1]):
                columns = right[other : other + BLOCK[1]]
                close = mine @ self.vectors[columns].T >= self.threshold - self._margin
                places = np.flatnonzero(close)
                found.append(self._near(rows[places // len(columns)], columns[places % len(columns)]))
        return join_pairs(found)

    def _near(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
        i, j = i[i != j], j[i != j]
        cosine = np.empty(len(i))
        for start in range(0, len(i), CHUNK):
            part = slice(start, start + CHUNK)
            a, b = self.vectors[i[part]].astype(np.float64), self.vectors[j[part]].astype(np.float64)
            lengths = np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b)
            cosine[part] = np.einsum("nd,nd->n", a, b) / np.sqrt(lengths)
        cosine = np.round(cosine, DIGITS)
        near = cosine >= self.threshold
        return i[near], j[near], cosine[near]
