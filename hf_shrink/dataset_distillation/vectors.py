"""Embeddings as they come from users: checked once, before any work."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError


def check_vectors(vectors: Any, argument: str = "embeddings", rows: int | None = None) -> NDArray[Any]:
    """Read embeddings, and refuse those that would fail silently.

    Args:
        vectors: Shape (N, D), of any floating type; arrays, tensors of the CPU or lists.
        argument: What the user calls them.
        rows: N, where it is known.

    Returns:
        The vectors as an array, not copied where they are one.

    Raises:
        ShrinkError: If they are no finite matrix, or not as many as the rows.
    """
    found = np.asarray(vectors)
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiu":
        raise ShrinkError(
            f"`{argument}` must be numbers of shape (rows, dimensions), got {found.dtype} of shape {found.shape}. "
            "Give one vector a row."
        )
    if rows is not None and len(found) != rows:
        raise ShrinkError(
            f"`{argument}` must have one vector for each of the {rows} rows, got {len(found)}. Encode the same rows."
        )
    if bad := int(np.count_nonzero(~np.isfinite(found).all(axis=1))):
        raise ShrinkError(
            f"`{argument}` must be finite, but {bad} of {len(found)} vectors hold NaN or infinity. Encode these rows "
            "again, in float32."
        )
    return found
