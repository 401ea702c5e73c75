"""Parts of a dataset that are held out in turn."""

import numpy as np
from numpy.typing import NDArray


def deal(ids: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal the rows of each class out to folds in turn.

    Args:
        ids: Shape (N,), class ids.
        folds: Number of folds, in [2, N].
        seed: Of the order in which they are dealt.

    Returns:
        Shape (N,), the fold of each row, from 0; all folds are of one size, give or take a row.
    """
    shuffled = np.random.default_rng(seed).permutation(len(ids))
    dealt = np.empty(len(ids), dtype=np.int64)
    # Goes on from class to class: small classes do not all begin at fold 0.
    dealt[shuffled[np.argsort(ids[shuffled], kind="stable")]] = np.arange(len(ids)) % folds
    return dealt
