"""k-center."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import embeddings_of
from hf_shrink.dataset_distillation.selectors import SELECTORS

POOL = 4096  # rows among which the farthest is looked for; 6 MB of 384 numbers each
STAGE = 48  # picks that a row is held against before it is asked whether it is still among the farthest
DIGITS = 12  # of cosines in fp64: what differs after them differs by the order of a sum


@SELECTORS.add("k_center", paper="arXiv:1708.00489", reads=("embeddings",), strata=True)
def k_center(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep rows so that none of the others is far from one that is kept (Sener & Savarese, 2018).

    Farthest first: the first pick is the row nearest to the mean, each later one the row that is farthest from all
    picks before it. The picks are those of the plain algorithm, which measures every row against every pick; here a
    row is measured again only when the picks that it has seen leave it among the farthest.

    Args:
        candidates: The rows, with `embeddings`, of unit length: the farthest row is that with the lowest cosine.
        count: K, in [1, N].
        generator: Unused: nothing is random.

    Returns:
        K rows, in the order of the picks, so that each prefix is a choice by itself.
    """
    rows = np.ascontiguousarray(embeddings_of(candidates))
    if len(rows) <= POOL:
        return as_picks(_farthest_first(rows, count))
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):  # for products as small as these, threads wait more than they work
        return as_picks(_farthest_first(rows, count))


def _farthest_first(rows: NDArray[np.float32], count: int) -> list[int]:
    search = _Search(rows, count)
    while len(search.picks) < count:
        search.fill_pool()
        search.draw()
    return search.picks


class _Search:
    """The picks so far, and what is known of the rows.

    `cosines` holds, for each row, the highest cosine with the first `seen` picks. More picks can only raise it, so a
    row that is nearer to them than the farthest one is out of question, however few it has seen.
    """

    def __init__(self, rows: NDArray[np.float32], count: int) -> None:
        size, width = rows.shape
        self.rows, self.count, self.picks = rows, count, [_central(rows)]
        self.points = np.empty((count, width), dtype=np.float32)  # the picks' rows
        self.points[0] = rows[self.picks[0]]
        self.cosines = rows @ self.points[0]
        self.cosines[self.picks[0]] = np.inf
        self.seen = np.ones(size, dtype=np.int64)
        self.exact, self.settled = np.full(size, -np.inf), np.zeros(size, dtype=np.int64)
        self.margin = margin(width)
        self.limit = min(POOL, size)
        self.pool = np.empty(0, dtype=np.int64)
        self.outside = np.float32(np.inf)  # no row outside the pool is farther than this

    def fill_pool(self) -> None:
        """Gather the rows that may be the farthest, and hold them against all picks."""
        if self.limit < len(self.rows):
            order = np.argpartition(self.cosines, self.limit)
            self.pool, self.outside = order[: self.limit], self.cosines[order[self.limit]]
        else:
            self.pool, self.outside = np.arange(len(self.rows)), np.float32(np.inf)
        stale = self.pool[self.seen[self.pool] < len(self.picks)]
        stages = self.seen[stale] // STAGE
        for stage in np.unique(stages):
            self._measure(stale[stages == stage])
        self.pool = self.pool[self.cosines[self.pool] < self.outside - self.margin]
        if not (len(self.pool) or len(stale)):
            self.limit *= 2  # all of it is as far as what is outside

    def _measure(self, stale: NDArray[np.int64]) -> None:
        rows, seen = self.rows[stale], self.seen[stale].min()
        while seen < len(self.picks) and len(stale):
            end = min((seen // STAGE + 1) * STAGE, len(self.picks))
            self.cosines[stale] = found = np.maximum(self.cosines[stale], (self.points[seen:end] @ rows.T).max(0))
            self.seen[stale] = seen = end
            far = found < self.outside - self.margin
            stale, rows = stale[far], rows[far]

    def draw(self) -> None:
        """Pick from the pool for as long as its farthest row is farther than all that are outside."""
        rows, cosines = self.rows[self.pool], self.cosines[self.pool]
        while len(self.pool) and len(self.picks) < self.count:
            lowest = cosines.min()
            if not lowest < self.outside - self.margin:
                break
            tied = np.flatnonzero(cosines <= lowest + self.margin)
            found = tied[0] if len(tied) == 1 else tied[self._settle(self.pool[tied])]
            self.points[len(self.picks)] = rows[found]
            self.picks.append(int(self.pool[found]))
            np.maximum(cosines, rows @ rows[found], out=cosines)
            cosines[found] = np.inf
        self.cosines[self.pool] = cosines
        self.seen[self.pool] = len(self.picks)

    def _settle(self, tied: NDArray[np.int64]) -> int:
        """Which of rows that fp32 cannot tell apart is the farthest, in fp64; the lowest position where two are."""
        for done in np.unique(self.settled[tied]):
            group = tied[self.settled[tied] == done]
            found = highest(self.rows[group], self.points[done : len(self.picks)])
            self.exact[group] = np.maximum(self.exact[group], found)
            self.settled[group] = len(self.picks)
        return int(np.lexsort((tied, self.exact[tied].round(DIGITS)))[0])


def margin(width: int) -> float:
    """How far two cosines in fp32 may differ that are the same.

    Args:
        width: D, the numbers of a row.

    Returns:
        Twice eight standard deviations of the rounding errors of a sum of D products.
    """
    return 2**-20 * width**0.5


def highest(rows: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """The highest product of each row with one of the points, in fp64; it hangs on nothing but the two rows.

    Args:
        rows: Shape (N, D).
        points: Shape (K, D).

    Returns:
        Shape (N,).
    """
    left, right = rows.astype(np.float64), points.astype(np.float64)
    if len(left) <= len(right):
        return np.array([(right * row).sum(1).max() for row in left])
    return np.max([(left * point).sum(1) for point in right], axis=0)


def _central(rows: NDArray[np.float32]) -> int:
    """The row nearest to the mean."""
    mean = np.zeros(rows.shape[1])
    for start in range(0, len(rows), 64):  # in an order of its own: BLAS has another for each number of threads
        mean += rows[start : start + 64].sum(0)
    mean /= len(rows)
    products = rows @ mean.astype(np.float32)
    tied = np.flatnonzero(products >= products.max() - margin(rows.shape[1]))
    return int(tied[highest(rows[tied], mean[None]).round(DIGITS).argmax()])
