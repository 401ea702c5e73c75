"""Pairs of embeddings among more rows than can all be compared: an inverted file of cells, by faiss."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.near_pairs import Pairs, join_pairs
from hf_shrink.dataset_distillation.near_vectors import NearVectors
from hf_shrink.errors import require
from hf_shrink.inputs.counts import check_counts

QUERIES = 4096  # rows that search at once
SAMPLE = 64  # rows a cell that its centre is made of


class NearCells(NearVectors):
    """Embeddings, compared with those of the cells around them.

    Args:
        vectors: Shape (N, D), unit length.
        threshold: The least cosine of a pair, in (0, 1].
        cells: How many; None takes 4 times the square root of the rows.
        probes: Cells that a row looks into.
        seed: Of the cells.
    """

    def __init__(
        self, vectors: NDArray[np.float32], threshold: float, *, cells: int | None, probes: int, seed: int
    ) -> None:
        super().__init__(vectors, threshold)
        check_counts(cells=cells, probes=probes)
        self._faiss = require("faiss", extra="scale")
        count = min(cells or round(4 * len(vectors) ** 0.5), len(vectors))
        self._probes = min(probes, count)
        quantizer = self._faiss.IndexFlatIP(vectors.shape[1])
        self._index = self._faiss.IndexIVFFlat(quantizer, vectors.shape[1], count, self._faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed, self._index.cp.spherical = seed, True
        self._index.cp.max_points_per_centroid = SAMPLE
        self._index.train(vectors)
        self._index.add(vectors)

    def pairs(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Pairs:
        """Find who is near whom.

        Args:
            left: Positions of vectors.
            right: Positions of vectors.

        Returns:
            Positions of one of each and their cosine, at least the threshold; a pair that no cell brings together is
            missed.
        """
        chosen = np.zeros(len(self), dtype=bool)
        chosen[right] = True
        bits = np.packbits(chosen, bitorder="little")
        only = self._faiss.IDSelectorBitmap(bits)
        search = self._faiss.SearchParametersIVF(sel=only, nprobe=self._probes)
        found = []
        for start in range(0, len(left), QUERIES):
            rows = left[start : start + QUERIES]
            bounds, _, others = self._index.range_search(
                self.vectors[rows], self.threshold - self._margin, params=search
            )
            found.append(self._near(np.repeat(rows, np.diff(bounds.astype(np.int64))), others))
        i, j, cosine = join_pairs(found)
        order = np.lexsort((j, i))  # faiss lists a cell after the other
        return i[order], j[order], cosine[order]
