"""Graph cut."""

import numpy as np
from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import ROWS, embeddings_of, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError


@SELECTORS.add("graph_cut", paper="arXiv:2006.15412", reads=("embeddings",), strata=True)
def graph_cut(candidates: Candidates, count: int, generator: Generator, *, redundancy: float = 0.5) -> Picks:
    """Keep rows that are like all rows and unlike one another, by graph cut (Iyer et al., 2021).

    Each pick is the row that adds most to the mean cosine between the picks and all rows, less what it adds to the
    cosines among the picks. The paper weighs sums, in which a few picks count nothing beside all rows; here the mean
    over the rows is held against the mean over K picks, so that one value serves any N and K.

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Unused: nothing is random.
        redundancy: What the cosines among the picks count, at least 0; with 0, the rows nearest to the mean are kept.

    Returns:
        K rows, in the order of the picks.

    Raises:
        ShrinkError: If `redundancy` is below 0.
    """
    if not 0 <= redundancy < np.inf:
        raise ShrinkError(f"`redundancy` must be at least 0, got {redundancy}. Leave it out for 0.5.")
    rows = on_grid(embeddings_of(candidates))
    total = rows.sum(0, dtype=np.float64)
    gains = np.concatenate([rows[start : start + ROWS] @ total for start in range(0, len(rows), ROWS)]) / len(rows)
    gains -= redundancy / count * np.einsum("nd,nd->n", rows, rows)
    picks = np.empty(count, dtype=np.int64)
    for number in range(count):
        picks[number] = pick = gains.argmax()
        gains -= 2 * redundancy / count * (rows @ rows[pick])
        gains[pick] = -np.inf
    return as_picks(picks)
