"""Similarity to rows that matter."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import BLOCK, embeddings_of, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError

SPARE = 16  # rows that are ranked for a target beyond its share: others may have picked some before


@SELECTORS.add("rds", paper="arXiv:2503.01807", reads=("embeddings", "targets"), strata=False)
def rds(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows most like those of a target set, for each target in turn: RDS+ (Ivison et al., 2025).

    Args:
        candidates: The rows, with `embeddings` and `targets`.
        count: K, in [1, N].
        generator: Unused: nothing is random.

    Returns:
        K rows in the order of the picks: the best one for each target, then the next best one for each.

    Raises:
        ShrinkError: If there are no targets.
    """
    if candidates.targets is None or len(candidates.targets) == 0:
        raise ShrinkError(
            "`targets` must hold at least one row, got none. Give the rows that the picks shall be like."
        )
    rows, targets = on_grid(embeddings_of(candidates)), on_grid(candidates.targets)
    depth = -(-count // len(targets)) + SPARE
    while (picks := _in_turn(_ranked(rows, targets, min(depth, len(rows))), count)) is None:
        depth *= 4
    return as_picks(picks)


def _ranked(rows: NDArray[np.float32], targets: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
    """The most similar rows of each target, best first; of two that are as similar, the lower position."""
    ranked = np.empty((len(targets), depth), dtype=np.int64)
    behind = np.arange(len(rows))
    step = max(BLOCK // len(rows), 1)
    for start in range(0, len(targets), step):
        products = (targets[start : start + step] @ rows.T).astype(np.int64)
        keys = behind - products * len(rows)  # no two are equal, so that no order hangs on the sort
        best = np.argpartition(keys, depth - 1, axis=1)[:, :depth]
        order = np.take_along_axis(keys, best, axis=1).argsort(axis=1)
        ranked[start : start + step] = np.take_along_axis(best, order, axis=1)
    return ranked


def _in_turn(ranked: NDArray[np.int64], count: int) -> list[int] | None:
    """Each target's best row that is left, round after round; None where a target has run out of ranked rows."""
    picks: dict[int, None] = {}
    waiting = [iter(row) for row in ranked.tolist()]
    while True:
        for rows in waiting:
            pick = next((row for row in rows if row not in picks), None)
            if pick is None:
                return None
            picks[pick] = None
            if len(picks) == count:
                return list(picks)
