"""A plain sample."""

from numpy.random import Generator

from hf_shrink.dataset_distillation.candidates import Candidates, Picks, as_picks
from hf_shrink.dataset_distillation.selectors import SELECTORS


@SELECTORS.add("random", paper="arXiv:2204.08499", reads=(), strata=False)
def random(candidates: Candidates, count: int, generator: Generator) -> Picks:
    """Keep rows by lot, whatever their class: the baseline of DeepCore (Guo et al., 2022).

    Args:
        candidates: The rows.
        count: K, in [1, N].
        generator: The lot.

    Returns:
        K rows.
    """
    return as_picks(generator.permutation(candidates.size)[:count])
