"""Embeddings that a user gives, checked once: one row a row, finite, told apart, of unit length."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError

BLOCK = 8192  # rows scaled at a time: their copy in double precision stays small
SAME = 1e-6  # rows of unit length that are closer than this in every column are one and the same

INSTEAD = "Leave `embeddings` out to have the rows encoded."


def check_embeddings(embeddings: Any, rows: int) -> NDArray[np.float32]:
    """Give embeddings the form that selectors read.

    Args:
        embeddings: Shape (N, D): lists, an array (also one that is mapped into memory) or a tensor on the CPU, of any
            length and any type of number.
        rows: N, the number of rows that they belong to.

    Returns:
        Shape (N, D), a copy, each row of unit length.

    Raises:
        ShrinkError: If they are no table of numbers, of another length, not finite, zero, or all equal: nothing could
            be told apart by them.
    """
    table = _as_table(embeddings)
    if len(table) != rows:
        raise ShrinkError(
            f"`embeddings` must have one row for each of the {rows:,} of `dataset`, got {len(table):,}. Encode these "
            "very rows, in their order."
        )
    unit = unit_rows(table)
    if rows > 1 and np.ptp(unit, axis=0).max() <= SAME:
        raise ShrinkError(
            f"`embeddings` must differ from row to row, but all {rows:,} point in one direction. Check what made "
            f"them: a wrong pooling gives this. {INSTEAD}"
        )
    return unit


def unit_rows(table: NDArray[Any], argument: str = "embeddings", first: int = 0) -> NDArray[np.float32]:
    """Scale each row to unit length.

    Args:
        table: Shape (N, D).
        argument: What the user calls what made it.
        first: Number of its first row, for the error.

    Returns:
        Shape (N, D), a copy.

    Raises:
        ShrinkError: If a row is zero or not finite.
    """
    unit = np.empty(table.shape, dtype=np.float32)
    for start in range(0, len(table), BLOCK):
        block = np.array(table[start : start + BLOCK], dtype=np.float64)
        largest = np.abs(block).max(axis=1, keepdims=True)  # NaN stays NaN
        if not (good := np.isfinite(largest) & (largest > 0)).all():
            row = int(np.argmin(good))
            what = "is zero in every column" if largest[row, 0] == 0 else "has NaN or infinity"
            raise ShrinkError(
                f"`{argument}` must give each row a finite direction, but row {first + start + row} {what}. "
                "Drop the row, or mend what made it."
            )
        block /= largest  # so that no square is too large or too small
        # Row by row and without BLAS, whose sums depend on the number of threads.
        unit[start : start + BLOCK] = block / np.sqrt(np.square(block).sum(axis=1, keepdims=True))
    return unit


def _as_table(embeddings: Any) -> NDArray[Any]:
    try:
        table = np.asarray(embeddings)
        if table.dtype.kind not in "fiub":
            table = table.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; text; a tensor elsewhere or with a gradient
        raise ShrinkError(
            f"`embeddings` must be a table of numbers, got {type(embeddings).__name__} that makes none ({error}). "
            f"Give an array of shape (rows, width). {INSTEAD}"
        ) from error
    if table.ndim != 2 or not table.shape[1]:
        raise ShrinkError(
            f"`embeddings` must have shape (rows, width), got {table.shape}. Give one vector a row. {INSTEAD}"
        )
    return table
