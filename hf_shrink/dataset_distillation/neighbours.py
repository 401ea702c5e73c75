"""Which rows are like which: the highest similarities of each row, found in tiles."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

TILE = 512  # rows whose products with as many others are held at once; 1 MB
SAMPLE = 512  # rows at least that the similarity of the last neighbour is judged by
RANK = 8  # of the last neighbour among them, at least


def neighbour_graph(rows: NDArray[np.float32], neighbours: int) -> tuple[csr_matrix, NDArray[np.float32]]:
    """Similarities of each row with about its `neighbours` nearest rows, itself among them.

    How similar a row's last neighbour is, is judged by a sample of the others, and all that are more similar are kept:
    sorting every row of the whole matrix would cost more than computing it.

    Args:
        rows: Shape (N, D), on the grid.
        neighbours: At least 1.

    Returns:
        Sparse (N, N), products of the rows on the grid less the floor of their first, all above 0; and the floors,
        shape (N,), at least 0: what is not in the matrix of a row is not above its floor.
    """
    tiles = [(a, b) for a in range(0, len(rows), TILE) for b in range(a, len(rows), TILE)]
    with _one_thread_each() as threads:
        floors = _floors(rows, neighbours, threads)
        parts = list(threads.map(lambda tile: _above(rows, floors, *tile), tiles))
    first, second, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    del parts
    return coo_matrix((values, (first, second)), shape=(len(rows), len(rows))).tocsr(), floors


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """As many threads as BLAS would use; for products as small as a tile, its own wait more than they work."""
    from threadpoolctl import threadpool_info, threadpool_limits

    number = max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(number) as threads:
        yield threads


def _floors(rows: NDArray[np.float32], neighbours: int, threads: ThreadPoolExecutor) -> NDArray[np.float32]:
    """The similarity that about so many rows are above."""
    size = len(rows)
    sampled = min(max(SAMPLE, ceil(RANK * size / neighbours)), size)
    sample = rows[np.linspace(0, size - 1, sampled).astype(np.int64)]
    rank = max(round(sampled * neighbours / size), 1)
    if rank >= sampled:
        return np.zeros(size, dtype=np.float32)

    def tile(start: int) -> NDArray[np.float32]:
        products = rows[start : start + TILE] @ sample.T
        products.partition(sampled - 1 - rank, axis=1)
        return products[:, -1 - rank].copy()

    floors = np.concatenate(list(threads.map(tile, range(0, size, TILE))))
    # a row is above its own floor, also where half of the rows are copies of it
    return np.clip(floors, 0, np.maximum(np.einsum("nd,nd->n", rows, rows) - 1, 0))


def _above(
    rows: NDArray[np.float32], floors: NDArray[np.float32], start: int, other: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Entries of a tile, and of the one that mirrors it at the diagonal."""
    products = rows[start : start + TILE] @ rows[other : other + TILE].T
    height, width = products.shape
    left, right = floors[start : start + height], floors[other : other + width]
    mask = products > left[:, None]
    mask |= products > right
    places = np.flatnonzero(mask)
    first, second = np.divmod(places.astype(np.int32), np.int32(width))
    found = products.ravel()[places]
    above, mirrored = found > left[first], found > right[second]
    if start == other:
        mirrored[:] = False
    owners = np.concatenate([first[above] + np.int32(start), second[mirrored] + np.int32(other)])
    others = np.concatenate([second[above] + np.int32(other), first[mirrored] + np.int32(start)])
    return owners, others, np.concatenate([found[above], found[mirrored]]) - floors[owners]
