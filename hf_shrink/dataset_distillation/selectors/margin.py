"""The smallest margins."""

from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.hardest import hardest_first
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("margin", paper="arXiv:2204.08499", reads=("difficulty",), strata=True, score="margin")
def margin(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows whose two likeliest classes are closest (as in DeepCore, Guo et al., 2022).

    Args:
        candidates: The rows, with their difficulty.
        count: K, in [1, N].
        generator: Unused; part of the signature that all selectors share.

    Returns:
        K rows, the hardest first.
    """
    return as_picks(hardest_first(candidates)[:count])
