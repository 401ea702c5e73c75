"""Confidence of dataset cartography."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, mean_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("confidence", paper="arXiv:2009.10795", reads=("label_probability",), hard="low")
def confidence(dynamics: Mapping[str, Values]) -> Values:
    """Mean probability of the label over the epochs (Swayamdipta et al., 2020).

    Args:
        dynamics: `label_probability`, shape (E, N).

    Returns:
        Shape (N,), in [0, 1]; NaN for a row that was not seen.
    """
    return mean_seen(dynamics["label_probability"])
