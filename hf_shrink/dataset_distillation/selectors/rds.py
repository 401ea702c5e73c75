"""RDS: rows like those that matter."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import BLOCK, embeddings_of, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError


@SELECTORS.add("rds", paper="arXiv:2503.01807", reads=("embeddings", "targets"), strata=False)
def rds(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows most like those of a target set, each target in turn choosing one (RDS+, Ivison et al., 2025).

    Taking turns gives rare targets their share: by the highest similarity alone one crowded corner would take all.

    Args:
        candidates: The rows, with `embeddings` and `targets`.
        count: K, in [1, N].
        generator: Unused: nothing is random.

    Returns:
        K rows, in the order of the turns; the cluster of each is the target that chose it.

    Raises:
        ShrinkError: If there are no targets, or of another width.
    """
    rows, targets = embeddings_of(candidates), candidates.targets
    if targets is None or not len(targets) or targets.shape[1] != rows.shape[1]:
        shape = None if targets is None else targets.shape
        raise ShrinkError(
            f"`targets` must be rows of {rows.shape[1]} columns as the embeddings have, got {shape}. Encode both with "
            "one encoder."
        )
    wishes = _wishes(on_grid(rows), on_grid(targets), count)
    free, places = np.ones(len(rows), dtype=bool), np.zeros(len(wishes), dtype=np.int64)
    picks, turns = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for number in range(count):
        turn = number % len(wishes)
        while not free[wishes[turn, places[turn]]]:
            places[turn] += 1
        picks[number], turns[number] = wishes[turn, places[turn]], turn
        free[picks[number]] = False
    return as_picks(picks, clusters=turns)


def _wishes(rows: NDArray[np.float32], targets: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` rows most like each target, the most similar first: others took at most `count - 1` of them."""
    found, step = [], max(BLOCK // len(rows), 1)
    for start in range(0, len(targets), step):
        alike = targets[start : start + step] @ rows.T
        found.append(np.argsort(-alike, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)
