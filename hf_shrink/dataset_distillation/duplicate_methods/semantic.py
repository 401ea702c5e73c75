"""Rows whose embeddings point the same way."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.near_cells import NearCells
from hf_shrink.dataset_distillation.near_vectors import NearVectors

EXACT_ROWS = 100_000  # up to which all pairs are compared


@DUPLICATE_METHODS.add("semantic", paper="arXiv:2303.09540", reads="embeddings", extra="scale")
def semantic(
    vectors: NDArray[np.float32],
    threshold: float,
    *,
    exact_rows: int = EXACT_ROWS,
    cells: int | None = None,
    probes: int = 32,
    seed: int = 0,
) -> NearVectors:
    """Rows that say the same in other words, by the cosine of their embeddings (SemDeDup, Abbas et al., 2023).

    Args:
        vectors: Shape (N, D), unit length.
        threshold: Least cosine, in (0, 1].
        exact_rows: Rows up to which all pairs are compared and none is missed. Above, each row is compared with those
            of the cells around it, by faiss (the extra `scale`).
        cells: How many cells; None takes 4 times the square root of the rows.
        probes: Cells that a row looks into; more of them miss fewer pairs, and take longer.
        seed: Of the cells.

    Returns:
        What finds the pairs.
    """
    if len(vectors) <= exact_rows:
        return NearVectors(vectors, threshold)
    return NearCells(vectors, threshold, cells=cells, probes=probes, seed=seed)
