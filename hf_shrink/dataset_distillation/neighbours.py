"""Which rows are like which: the highest similarities of each row, found in tiles."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

TILE = 512  # rows whose products with as many others are held at once; 1 MB
SAMPLE = 512  # rows that the similarity of the last neighbour is judged by


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
    floors = _floors(rows, neighbours)
    parts = [
        _above(rows[start : start + TILE] @ rows[other : other + TILE].T, floors, start, other)
        for start in range(0, len(rows), TILE)
        for other in range(start, len(rows), TILE)
    ]
    first, second, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    del parts
    return coo_matrix((values, (first, second)), shape=(len(rows), len(rows))).tocsr(), floors


def _floors(rows: NDArray[np.float32], neighbours: int) -> NDArray[np.float32]:
    """The similarity that about so many rows are above."""
    size = len(rows)
    sample = rows[np.linspace(0, size - 1, min(SAMPLE, size)).astype(np.int64)]
    rank = max(round(len(sample) * neighbours / size), 1)
    floors = np.zeros(size, dtype=np.float32)
    if rank >= len(sample):
        return floors
    for start in range(0, size, TILE):
        products = rows[start : start + TILE] @ sample.T
        floors[start : start + TILE] = np.partition(products, len(sample) - 1 - rank, axis=1)[:, -1 - rank]
    # a row is above its own floor, also where half of the rows are copies of it
    return np.clip(floors, 0, np.maximum(np.einsum("nd,nd->n", rows, rows) - 1, 0))


def _above(
    products: NDArray[np.float32], floors: NDArray[np.float32], start: int, other: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Entries of a tile, and of the one that mirrors it at the diagonal."""
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
    rows = np.concatenate([first[above] + np.int32(start), second[mirrored] + np.int32(other)])
    columns = np.concatenate([second[above] + np.int32(other), first[mirrored] + np.int32(start)])
    return rows, columns, np.concatenate([found[above], found[mirrored]]) - floors[rows]
