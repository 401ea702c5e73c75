"""Forgetting events."""

from collections.abc import Mapping

import numpy as np

from hf_shrink.dataset_distillation.dynamics import Values
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("forgetting", paper="arXiv:1812.05159", reads=("correct",), hard="high")
def forgetting(dynamics: Mapping[str, Values]) -> Values:
    """How often a right answer became a wrong one from one epoch to the next (Toneva et al., 2018).

    A row that was never answered rightly has no such event and is the hardest of all: it counts as one forgotten in
    every epoch. A row with several tokens or labels is right as a whole where all are, and forgets where fewer are
    right than before.

    Args:
        dynamics: `correct`, shape (E, N).

    Returns:
        Shape (N,), events in [0, E / 2], or E for a row that was never learned; NaN for one that was not seen.
    """
    right = dynamics["correct"]
    before, events = np.full(right.shape[1], np.nan, np.float32), np.zeros(right.shape[1], np.float32)
    for epoch in right:
        events += epoch < before  # false beside NaN
        before = np.where(np.isnan(epoch), before, epoch)
    learned = (right == 1).any(axis=0)
    return np.where(np.isnan(before), np.nan, np.where(learned, events, len(right))).astype(np.float32)
