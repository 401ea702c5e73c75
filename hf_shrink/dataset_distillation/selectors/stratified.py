"""A stratified sample."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("stratified", paper="https://doi.org/10.1007/978-3-642-23808-6_10", reads=("labels",), strata=True)
def stratified(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the share of every label, also where rows have several (Sechidis et al., 2011).

    Rows of one label each come as strata, and a stratum is sampled by lot. Rows that may have several are dealt out in
    two parts, the kept and the left, the rarest label first: each row goes where more rows of that label are wanted.

    Args:
        candidates: The rows; `labels` where they may have several.
        count: K, in [1, N].
        generator: The lot.

    Returns:
        K rows, in random order.
    """
    order = generator.permutation(candidates.size)
    if candidates.labels is None:
        return as_picks(order[:count])
    kept = order[_deal(candidates.labels[order], count)]
    return as_picks(generator.permutation(kept))


def _deal(labels: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Positions of the rows that are kept; ties go by the order of the rows, which is random."""
    share = count / len(labels)
    wanted = np.outer([share, 1 - share], labels.sum(0))  # (2, L), rows of each label, in the kept part and the rest
    room = np.array([count, len(labels) - count])
    free, part = np.ones(len(labels), dtype=bool), np.ones(len(labels), dtype=np.int64)
    open_rows = labels.sum(0)
    while open_rows.any():
        label = np.where(open_rows > 0, open_rows, len(labels) + 1).argmin()
        for row in np.flatnonzero(free & labels[:, label]):
            part[row] = side = _side(wanted[:, label], wanted.sum(1), room)
            wanted[side] -= labels[row]
            room[side] -= 1
        free &= ~labels[:, label]
        open_rows = labels[free].sum(0)
    part[np.flatnonzero(free)[: room[0]]] = 0  # rows without a label fill what is left
    return np.flatnonzero(part == 0)


def _side(wanted: NDArray[np.float64], total: NDArray[np.float64], room: NDArray[np.int64]) -> int:
    if not room.all():
        return int(room.argmax())
    if wanted[0] != wanted[1]:
        return int(wanted[1] > wanted[0])
    return int(total[1] > total[0])
