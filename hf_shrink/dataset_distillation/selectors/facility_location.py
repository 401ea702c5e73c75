"""Facility location."""

from collections.abc import Callable
from math import ceil, log
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import embeddings_of, nearest, on_grid
from hf_shrink.dataset_distillation.neighbours import neighbour_graph
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError

DENSE = 4096  # rows of which all similarities are held; 67 MB
NEIGHBOURS = 128  # of each row, where there are more
BATCH = 16  # stale gains that are computed anew at once

Draw = Callable[[NDArray[np.bool_]], NDArray[np.int64]]


@SELECTORS.add("facility_location", paper="arXiv:1409.7938", reads=("embeddings",), strata=True)
def facility_location(
    candidates: Candidates,
    count: int,
    generator: Generator,
    *,
    optimizer: Literal["lazy", "stochastic"] = "lazy",
    neighbours: int | None = None,
    epsilon: float = 0.01,
) -> Picks:
    """Keep rows so that each of all has one like it among them (Lin & Bilmes, 2011; Mirzasoleiman et al., 2015).

    Each pick is the row that adds most to the sum, over all rows, of the cosine with the most similar pick; cosines
    below 0 count as 0. Where not all similarities are held, a row that has no pick among its neighbours counts as if
    it had one as similar as the last of them.

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Draws the rows that `stochastic` looks at.
        optimizer: `lazy` looks at all rows for each pick, `stochastic` at N / K * ln(1 / epsilon) drawn at random.
        neighbours: Of each row, whose similarities are held, about; None for all up to 4096 rows, and 128 past that.
        epsilon: What `stochastic` may lose of the guarantee of greedy picks, in (0, 1).

    Returns:
        K rows in the order of the picks, each with the number of rows that are most similar to it.
    """
    _check(optimizer, neighbours, epsilon)
    rows, draw = on_grid(embeddings_of(candidates)), None
    if optimizer == "stochastic":
        draw = _lot(generator, ceil(len(rows) / count * log(1 / epsilon)))
    if neighbours is None and len(rows) <= DENSE:
        picks = _from_all(rows, count, draw)
        owners, _ = nearest(rows, rows[picks])
    else:
        picks, owners = _from_neighbours(rows, count, neighbours or NEIGHBOURS, draw)
        alone = np.flatnonzero(owners < 0)
        owners[alone], _ = nearest(rows[alone], rows[picks])
    owners[picks] = np.arange(count)  # of two picks that are equal, each stands for itself
    return as_picks(picks, np.bincount(owners, minlength=count))


def _check(optimizer: str, neighbours: int | None, epsilon: float) -> None:
    if optimizer not in ("lazy", "stochastic"):
        raise ShrinkError(f'`optimizer` must be "lazy" or "stochastic", got {optimizer!r}. Choose one of these.')
    if neighbours is not None and not neighbours >= 1:
        raise ShrinkError(f"`neighbours` must be at least 1, got {neighbours}. Leave it out, or try 128.")
    if not 0 < epsilon < 1:
        raise ShrinkError(f"`epsilon` must be in (0, 1), got {epsilon}. Write 0.01 for the paper's.")


def _lot(generator: Generator, size: int) -> Draw:
    def draw(free: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = np.flatnonzero(free)
        return np.sort(generator.choice(rows, min(size, len(rows)), replace=False))

    return draw


def _from_all(rows: NDArray[np.float32], count: int, draw: Draw | None) -> NDArray[np.int64]:
    """Greedy picks over all similarities; a gain only falls, so a stale one is an upper bound."""
    similarity = np.maximum(rows @ rows.T, 0)
    gains = similarity.sum(1, dtype=np.float64)  # whole numbers, exact in any order
    best, total = np.zeros(len(rows), dtype=np.float32), 0.0
    picks, free = np.empty(count, dtype=np.int64), np.ones(len(rows), dtype=bool)
    for number in range(count):
        looked_at = np.flatnonzero(free) if draw is None else draw(free)
        bounds, fresh = gains[looked_at], np.zeros(len(looked_at), dtype=bool)
        while not fresh[top := int(bounds.argmax())]:
            again = np.argpartition(bounds, -min(BATCH, len(bounds)))[-BATCH:]
            again = np.append(again[~fresh[again]], top)
            bounds[again] = np.maximum(similarity[looked_at[again]], best).sum(1, dtype=np.float64) - total
            fresh[again] = True
        gains[looked_at] = bounds
        picks[number] = pick = looked_at[top]
        free[pick] = False
        np.maximum(best, similarity[pick], out=best)
        total = best.sum(dtype=np.float64)
    return picks


def _from_neighbours(
    rows: NDArray[np.float32], count: int, neighbours: int, draw: Draw | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Greedy picks over the similarities of neighbours, and which of them is most similar to each row, -1 for none.

    A pick changes the gains of few rows, so all are kept fresh.
    """
    graph, _ = neighbour_graph(rows, neighbours)  # above the floor
    backward = graph.tocsc()
    gains = np.bincount(graph.indices, weights=graph.data, minlength=len(rows))
    best, owners = np.zeros(len(rows), dtype=np.float32), np.full(len(rows), -1)
    picks, free = np.empty(count, dtype=np.int64), np.ones(len(rows), dtype=bool)
    for number in range(count):
        looked_at = np.flatnonzero(free) if draw is None else draw(free)
        picks[number] = pick = looked_at[gains[looked_at].argmax()]
        free[pick] = False
        column = slice(backward.indptr[pick], backward.indptr[pick + 1])
        nearer = backward.data[column] > best[backward.indices[column]]
        owned, found = backward.indices[column][nearer], backward.data[column][nearer]
        places = _places(graph.indptr, owned)
        lengths = graph.indptr[owned + 1] - graph.indptr[owned]
        values = graph.data[places]
        before, after = np.repeat(best[owned], lengths), np.repeat(found, lengths)
        lost = np.maximum(values, before) - np.maximum(values, after)
        lost += after - before
        gains -= np.bincount(graph.indices[places], weights=lost, minlength=len(rows))
        best[owned], owners[owned] = found, number
    return picks, owners


def _places(starts: NDArray[np.int32], rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where the entries of some rows of a sparse matrix stand."""
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    return np.repeat(starts[rows] - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
