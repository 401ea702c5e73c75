"""Correctness of dataset cartography."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, mean_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("correctness", paper="arXiv:2009.10795", reads=("correct",), hard="low")
def correctness(dynamics: Mapping[str, Values]) -> Values:
    """Share of the epochs in which the answer was right (Swayamdipta et al., 2020).

    Args:
        dynamics: `correct`, shape (E, N).

    Returns:
        Shape (N,), in [0, 1]; NaN for a row that was not seen.
    """
    return mean_seen(dynamics["correct"])
