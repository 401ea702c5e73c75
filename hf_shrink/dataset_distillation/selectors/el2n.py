"""The largest errors."""

from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.hardest import hardest_first
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("el2n", paper="arXiv:2107.07075", reads=("difficulty",), strata=True, score="el2n")
def el2n(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows whose error is largest early in training (Paul et al., 2021).

    Args:
        candidates: The rows, with their difficulty.
        count: K, in [1, N].
        generator: Unused; part of the signature that all selectors share.

    Returns:
        K rows, the hardest first.
    """
    return as_picks(hardest_first(candidates)[:count])
