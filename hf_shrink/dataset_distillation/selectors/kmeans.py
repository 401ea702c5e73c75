"""k-means."""

from math import ceil, log

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import STEPS, embeddings_of, nearest, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.inputs.counts import check_counts

ROUNDS = 32  # in which the first centres are drawn, one each where there are fewer


@SELECTORS.add("kmeans", paper="arXiv:2010.09535", reads=("embeddings",), strata=True)
def kmeans(
    candidates: Candidates, count: int, generator: Generator, *, iterations: int = 20, restarts: int = 3
) -> Picks:
    """Keep the row nearest to the centre of each of K clusters: k-means as in ALPS (Yuan et al., 2020).

    Clusters are spherical: a row belongs to the centre with the highest cosine. Their first centres are drawn far from
    one another, as in k-means++ (Arthur & Vassilvitskii, 2007), a share of them at once where there are many.

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Draws the first centres.
        iterations: At most this many moves of the centres, at least 1.
        restarts: The best of this many attempts is used, at least 1.

    Returns:
        K rows with the sizes and the numbers of their clusters, the largest cluster first.
    """
    check_counts(iterations=iterations, restarts=restarts)
    rows = on_grid(embeddings_of(candidates))
    attempts = [_cluster(rows, count, generator, iterations) for _ in range(restarts)]
    clusters, cosines = max(attempts, key=lambda attempt: attempt[1].sum(dtype=np.float64))
    return _medoids(clusters, cosines, count)


def _cluster(
    rows: NDArray[np.float32], count: int, generator: Generator, iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The cluster of each row, and its product with the centre."""
    centres = rows[_first_centres(rows, count, generator)]
    clusters, cosines = nearest(rows, centres)
    for _ in range(iterations):
        centres = _means(rows, clusters, cosines, count)
        before, (clusters, cosines) = clusters, nearest(rows, centres)
        if np.array_equal(before, clusters):
            break
    return clusters, cosines


def _first_centres(rows: NDArray[np.float32], count: int, generator: Generator) -> NDArray[np.int64]:
    """Rows far from one another: of some draws, the one that leaves all rows nearest to a centre is used each time."""
    chosen = generator.integers(len(rows), size=1)
    _, cosines = nearest(rows, rows[chosen])
    while len(chosen) < count:
        weights = np.maximum(float(STEPS**2) - cosines, 0) + 1e-6  # where all rows are equal, any may follow
        batch = min(ceil(count / ROUNDS), count - len(chosen))
        best, found = -np.inf, (chosen, cosines)
        for _ in range(2 + int(log(count))):
            fresh = _draw(weights, chosen, batch, generator)
            nearer = np.maximum(cosines, nearest(rows, rows[fresh])[1])
            if (total := nearer.sum(dtype=np.float64)) > best:
                best, found = total, (np.concatenate([chosen, fresh]), nearer)
        chosen, cosines = found
    return chosen


def _draw(
    weights: NDArray[np.float64], chosen: NDArray[np.int64], batch: int, generator: Generator
) -> NDArray[np.int64]:
    """Rows by lot, in proportion to their weights, none twice and none that was chosen before."""
    keys = generator.exponential(size=len(weights)) / weights
    keys[chosen] = np.inf
    return np.sort(np.argpartition(keys, batch - 1)[:batch])


def _means(
    rows: NDArray[np.float32], clusters: NDArray[np.int64], cosines: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """Centres of the clusters, on the grid; an empty cluster starts again at one of the rows that fit worst."""
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters, minlength=count)
    filled = np.flatnonzero(sizes)
    starts = np.cumsum(sizes)[filled] - sizes[filled]
    sums = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
    lengths = np.sqrt(np.square(sums).sum(1, keepdims=True))
    centres = np.zeros((count, rows.shape[1]), dtype=np.float32)
    centres[filled] = np.rint(sums * (STEPS / np.maximum(lengths, 1)))
    empty = np.flatnonzero(sizes == 0)
    centres[empty] = rows[np.argsort(cosines, kind="stable")[: len(empty)]]
    return centres


def _medoids(clusters: NDArray[np.int64], cosines: NDArray[np.float32], count: int) -> Picks:
    order = np.lexsort((-cosines, clusters))  # by cluster, the nearest to its centre first; ties by position
    first = np.concatenate([[True], np.diff(clusters[order]) != 0])
    medoids = order[first]
    sizes = np.bincount(clusters, minlength=count)
    missing = count - len(medoids)
    if missing:  # fewer places than clusters: rows that fit worst stand for themselves
        alone = order[~first]
        alone = alone[np.lexsort((alone, cosines[alone]))][:missing]
        np.subtract.at(sizes, clusters[alone], 1)
        empty = np.setdiff1d(np.arange(count), clusters)
        sizes[empty] = 1
        clusters = clusters.copy()
        clusters[alone] = empty
        medoids = np.concatenate([medoids, alone])
    medoids = medoids[np.lexsort((medoids, -sizes[clusters[medoids]]))]
    return as_picks(medoids, sizes[clusters[medoids]], clusters[medoids])
