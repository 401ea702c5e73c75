"""The most forgotten rows."""

from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.hardest import hardest_first
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("forgetting", paper="arXiv:1812.05159", reads=("difficulty",), strata=True, score="forgetting")
def forgetting(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows that are forgotten most often, or never learned (Toneva et al., 2018).

    Args:
        candidates: The rows, with their difficulty.
        count: K, in [1, N].
        generator: Unused; part of the signature that all selectors share.

    Returns:
        K rows, the hardest first.
    """
    return as_picks(hardest_first(candidates)[:count])
