"""k-center."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("k_center", paper="arXiv:1708.00489", reads=("embeddings",), strata=True)
def k_center(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep rows so that none of the others is far from one that is kept (Sener & Savarese, 2018).

    Farthest first: the first pick is the row nearest to the mean, each later one the row that is farthest from all
    picks before it.

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Unused: nothing is random.

    Returns:
        K rows, in the order of the picks, so that each prefix is a choice by itself.
    """
    rows = candidates.embeddings.astype(np.float64, order="C")
    picks = [int(_squared(rows, rows.mean(0)).argmin())]
    nearest = _squared(rows, rows[picks[0]])
    while len(picks) < count:
        nearest[picks[-1]] = -1  # not twice, also where all rows are equal
        picks.append(int(nearest.argmax()))
        np.minimum(nearest, _squared(rows, rows[picks[-1]]), out=nearest)
        nearest[picks] = -1
    return as_picks(picks)


def _squared(rows: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = rows - point
    return np.einsum("nd,nd->n", difference, difference)
