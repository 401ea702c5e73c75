"""Message passing between difficulty and diversity."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import STEPS, on_grid
from hf_shrink.dataset_distillation.hardest import difficulty_of, without_hardest
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.counts import check_counts

BLOCK = 256  # rows compared at once: the matrix of all rows would not fit in memory


@SELECTORS.add("d2", paper="arXiv:2310.07931", reads=("embeddings", "difficulty"), strata=True, score="aum")
def d2(
    candidates: Candidates,
    count: int,
    generator: Generator,
    *,
    neighbours: int = 10,
    forward: float = 1.0,
    reverse: float = 1.0,
    hardest_share: float = 0.5,
) -> Picks:
    """Pick rows that are hard and whose neighbours are, each lowering those next to it (Maharana et al., 2023).

    Args:
        candidates: The rows, with embeddings and difficulty.
        count: K, in [1, N].
        generator: Unused; part of the signature that all selectors share.
        neighbours: Of a row in the graph, fewer where there are not so many rows; the paper tries 1 to 15.
        forward: How fast the weight of a neighbour's difficulty falls with its squared distance; the paper's 1.
        reverse: The same of what a picked row takes from its neighbours; the paper tries 0 to 1.
        hardest_share: Of the rows to leave out at first, in [0, 1); fewer where K would not be left. CCS takes
            this many at its smallest budgets.

    Returns:
        K rows, in the order in which they were picked.

    Raises:
        ShrinkError: If there are no embeddings, or a rate is below 0.
    """
    check_counts(neighbours=neighbours)
    if candidates.embeddings is None:
        raise ShrinkError("`embeddings` must be given to a selector that reads them, got None. Encode the rows first.")
    for argument, rate in (("forward", forward), ("reverse", reverse)):
        if not rate >= 0:
            raise ShrinkError(f"`{argument}` must be 0 or above, got {rate}. The paper's is 1.0.")
    left = without_hardest(candidates, count, hardest_share)
    near, similarity = _graph(candidates.embeddings[left], min(neighbours, len(left) - 1))
    distance = 2 - 2 * similarity  # squared, between rows of unit length
    worth = _scaled(difficulty_of(candidates)[left])
    worth = worth + (np.exp(-forward * distance) * worth[near]).sum(axis=1)
    return as_picks(left[_pick(worth, near, np.exp(-reverse * distance), count)])


def _pick(
    worth: NDArray[np.float64], near: NDArray[np.int64], weights: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """The most worthy row, again and again, each taking its share of what its neighbours are worth."""
    rows = np.empty(count, np.int64)
    for step in range(count):
        row = rows[step] = worth.argmax()
        worth[near[row]] -= weights[row] * max(worth[row], 0)  # what others have used up would raise its neighbours
        worth[row] = -np.inf
    return rows


def _graph(embeddings: NDArray[np.float32], neighbours: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each row's nearest others and their similarity, both (N, k), the same with any number of threads."""
    grid, count = on_grid(embeddings), len(embeddings)
    near = np.empty((count, neighbours), np.int64)
    similarity = np.empty(near.shape)
    for start in range(0, count, BLOCK):
        products = (grid[start : start + BLOCK] @ grid.T).astype(np.int64)
        own = np.arange(len(products))
        ranks = products * count - np.arange(count)  # of equal products the lower position's is the higher
        ranks[own, start + own] = np.iinfo(np.int64).min
        found = np.argpartition(ranks, count - neighbours - 1, axis=1)[:, count - neighbours :]
        order = np.argsort(-np.take_along_axis(ranks, found, axis=1), axis=1)
        near[start : start + BLOCK] = np.take_along_axis(found, order, axis=1)
        similarity[start : start + BLOCK] = np.take_along_axis(products, near[start : start + BLOCK], axis=1)
    return near, similarity / STEPS**2


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between 0 and 1: below 0 a picked row would raise its neighbours."""
    span = values.max() - values.min()
    return np.ones(len(values)) if span == 0 else (values - values.min()) / span
