"""Coverage-centric selection."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.hardest import difficulty_of, without_hardest
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.inputs.counts import check_counts


@SELECTORS.add("ccs", paper="arXiv:2210.15809", reads=("difficulty",), strata=True, score="aum")
def ccs(
    candidates: Candidates, count: int, generator: Generator, *, hardest_share: float = 0.3, bins: int = 50
) -> Picks:
    """Leave out the hardest rows and sample evenly over what difficulty is left (Zheng et al., 2022).

    Args:
        candidates: The rows, with their difficulty.
        count: K, in [1, N].
        generator: Draws within a bin.
        hardest_share: Of the rows to leave out, in [0, 1); fewer where K would not be left. The paper's for a tenth
            of CIFAR-10; it takes more the smaller the budget is, from 0 to a half.
        bins: Of equal width; the paper's 50.

    Returns:
        K rows, in the order of a lot.
    """
    check_counts(bins=bins)
    left = without_hardest(candidates, count, hardest_share)
    groups = [left[members] for members in _bins(difficulty_of(candidates)[left], bins)]
    picked: list[NDArray[np.int64]] = []
    needed = count
    for done, group in enumerate(sorted(groups, key=len)):  # what a small bin cannot give, the larger ones do
        share = min(len(group), needed // (len(groups) - done))
        picked.append(generator.permutation(group)[:share])
        needed -= share
    return as_picks(generator.permutation(np.concatenate(picked)))


def _bins(values: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    """Positions by bin, from easy to hard, without empty bins."""
    low, high = values.min(), values.max()
    width = (high - low) / bins
    numbers = np.zeros(len(values), int) if width == 0 else np.minimum((values - low) // width, bins - 1)
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
