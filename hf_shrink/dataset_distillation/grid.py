"""Embeddings on a grid of whole numbers, on which fp32 sums are exact: the same for any order, block and thread."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates
from hf_shrink.errors import ShrinkError

STEPS = 4000  # to the unit: the sums of products stay below STEPS**2 < 2**24, where fp32 holds every whole number
ROWS = 8192  # put on the grid at once
BLOCK = 2**22  # products held at once


def embeddings_of(candidates: Candidates) -> NDArray[np.float32]:
    """The embeddings that a selector reads.

    Args:
        candidates: The rows.

    Returns:
        Shape (N, D).

    Raises:
        ShrinkError: If there are none.
    """
    if candidates.embeddings is None:
        raise ShrinkError("`embeddings` must be given to a selector that reads them, got None. Encode the rows first.")
    return candidates.embeddings


def on_grid(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round embeddings to whole multiples of 1 / STEPS.

    BLAS adds up in another order for another shape, number of threads or processor, and the last bits differ. Products
    of whole numbers, and sums of them below 2**24, are exact in any order, so whatever is chosen by them is the same
    anywhere. Cosines are off by about 1e-4.

    Args:
        embeddings: Shape (N, D), rows of unit length. Longer ones are scaled down, all by the same factor.

    Returns:
        Shape (N, D), float32, whole numbers, in C order; cosines are their products divided by STEPS squared.
    """
    grid = np.empty(embeddings.shape, dtype=np.float32)
    scale = np.float32(STEPS / max(1.0, longest(embeddings)))
    for start in range(0, len(grid), ROWS):
        block = grid[start : start + ROWS]
        np.multiply(embeddings[start : start + ROWS], scale, out=block)
        np.rint(block, out=block)
    return grid


def longest(embeddings: NDArray[np.float32]) -> float:
    """Length of the longest row, to three digits.

    Args:
        embeddings: Shape (N, D).

    Returns:
        The length.
    """
    squares = 0.0
    for start in range(0, len(embeddings), ROWS):
        block = np.ascontiguousarray(embeddings[start : start + ROWS])
        squares = max(squares, float(np.einsum("nd,nd->n", block, block).max()))
    return round(squares**0.5, 3)


def nearest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The centre with the highest product, for each row.

    Args:
        rows: Shape (N, D), on the grid.
        centres: Shape (K, D), on the grid.

    Returns:
        Positions of the centres, the lower where two are as near, and the products; both of shape (N,).
    """
    found, products = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.float32)
    step = max(BLOCK // len(centres), 1)
    for start in range(0, len(rows), step):
        block = rows[start : start + step] @ centres.T
        best = block.argmax(1)
        found[start : start + step] = best
        products[start : start + step] = block[np.arange(len(block)), best]
    return found, products
