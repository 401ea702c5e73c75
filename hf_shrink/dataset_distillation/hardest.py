"""Rows in the order of their difficulty."""

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates
from hf_shrink.errors import ShrinkError


def hardest_first(candidates: Candidates) -> NDArray[np.int64]:
    """Sort rows by difficulty.

    Args:
        candidates: N rows with their difficulty.

    Returns:
        Shape (N,), positions, the hardest first; equally hard ones in the order of their positions.
    """
    return np.argsort(-difficulty_of(candidates), kind="stable")


def difficulty_of(candidates: Candidates) -> NDArray[np.float64]:
    """The difficulty that a selector is to read.

    Args:
        candidates: N rows.

    Returns:
        Shape (N,).

    Raises:
        ShrinkError: If there is none, or some of it is not finite: NaN would be sorted among the easy rows.
    """
    if candidates.difficulty is None:
        raise ShrinkError("`difficulty` must be given to a selector that reads it, got None. Score the rows first.")
    unknown = int((~np.isfinite(candidates.difficulty)).sum())
    if unknown:
        raise ShrinkError(
            f"`difficulty` must be finite, but {unknown} of {candidates.size} rows have NaN or infinity. Score them, "
            "or leave them out."
        )
    return candidates.difficulty.astype(np.float64)


def without_hardest(candidates: Candidates, count: int, share: float) -> NDArray[np.int64]:
    """Leave the hardest rows out, among which the mislabelled ones are.

    Args:
        candidates: N rows with their difficulty.
        count: Rows that must be left at least.
        share: Of the rows to leave out, in [0, 1).

    Returns:
        Positions of the rows that stay, in ascending order.

    Raises:
        ShrinkError: If the share is outside its range.
    """
    if not 0 <= share < 1:
        raise ShrinkError(f"`hardest_share` must be in [0, 1), got {share}. Leave out a tenth with 0.1.")
    dropped = min(int(share * candidates.size), candidates.size - count)
    return np.sort(hardest_first(candidates)[dropped:])
