"""The least certain answers."""

from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.hardest import hardest_first
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("entropy", paper="arXiv:1906.11829", reads=("difficulty",), strata=True, score="entropy")
def entropy(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep the rows whose answer is least certain (as in selection via proxy, Coleman et al., 2019).

    Args:
        candidates: The rows, with their difficulty.
        count: K, in [1, N].
        generator: Unused; part of the signature that all selectors share.

    Returns:
        K rows, the hardest first.
    """
    return as_picks(hardest_first(candidates)[:count])
