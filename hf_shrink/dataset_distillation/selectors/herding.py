"""Herding."""

import numpy as np
from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import ROWS, embeddings_of, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("herding", paper="arXiv:1203.3472", reads=("embeddings",), strata=True)
def herding(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows whose mean stays nearest to the mean of all (Welling, 2009; Chen et al., 2010).

    Each pick is the row that brings the mean of the picks nearest to the mean of the candidates, as iCaRL chooses its
    exemplars (arXiv:1611.07725). No row is picked twice.

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Unused: nothing is random.

    Returns:
        K rows, in the order of the picks, so that each prefix is a choice by itself.
    """
    rows = on_grid(embeddings_of(candidates))
    total = rows.sum(0, dtype=np.float64)
    squares = np.einsum("nd,nd->n", rows, rows).astype(np.float64)
    towards = np.concatenate([rows[start : start + ROWS] @ total for start in range(0, len(rows), ROWS)]) / len(rows)
    drawn = np.zeros(len(rows))  # products with the sum of the picks, exact like those with the sum of all
    free, picks = np.ones(len(rows), dtype=bool), []
    for number in range(1, count + 1):
        # |number * mean - drawn - row|^2, less what is the same for all rows
        distance = squares + 2 * drawn - 2 * number * towards
        distance[~free] = np.inf
        pick = int(distance.argmin())
        free[pick] = False
        picks.append(pick)
        drawn += rows @ rows[pick]
    return as_picks(picks)
