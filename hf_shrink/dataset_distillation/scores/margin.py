"""Margin of the answer."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, last_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("margin", paper="arXiv:2204.08499", reads=("probability_margin",), hard="low")
def margin(dynamics: Mapping[str, Values]) -> Values:
    """Largest probability less the second largest, in the last epoch (as in DeepCore, Guo et al., 2022).

    Args:
        dynamics: `probability_margin`, shape (E, N).

    Returns:
        Shape (N,), in [0, 1]; low where the model wavers, whatever the label; NaN for a row that was not seen.
    """
    return last_seen(dynamics["probability_margin"])
