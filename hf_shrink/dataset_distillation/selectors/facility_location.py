"""Facility location."""

import numpy as np
from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.grid import STEPS, on_grid
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("facility_location", paper="arXiv:1409.7938", reads=("embeddings",), strata=True)
def facility_location(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep rows so that each of all has one like it among them (Lin & Bilmes, 2011; Mirzasoleiman et al., 2015).

    Args:
        candidates: The rows, with `embeddings`.
        count: K, in [1, N].
        generator: Unused.

    Returns:
        K rows, with the number of rows that each stands for.
    """
    rows = on_grid(candidates.embeddings)
    size = len(rows)
    similarity = np.empty((size, size), dtype=np.uint8)
    for start in range(0, size, 512):
        block = rows[start : start + 512] @ rows.T
        similarity[start : start + 512] = np.rint(np.clip(block / STEPS**2, 0, 1) * 255)
    bounds = np.zeros(size, dtype=np.int64)
    for start in range(0, size, 512):
        bounds[start : start + 512] = similarity[start : start + 512].sum(1, dtype=np.int64)
    best, total, picks = np.zeros(size, dtype=np.uint8), 0, []
    for _ in range(count):
        bounds[picks] = -1
        fresh = np.zeros(size, dtype=bool)
        while not fresh[top := int(bounds.argmax())]:
            again = np.argpartition(-bounds, min(32, size - 1))[:32]
            again = again[bounds[again] >= 0]
            again = np.append(again, top)
            bounds[again] = np.maximum(similarity[again], best).sum(1, dtype=np.uint32).astype(np.int64) - total
            fresh[again] = True
        picks.append(top)
        best = np.maximum(best, similarity[top])
        total = int(best.sum(dtype=np.int64))
    owner = similarity[:, picks].argmax(1)
    owner[picks] = np.arange(count)
    return as_picks(picks, np.bincount(owner, minlength=count))
