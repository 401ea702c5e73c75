"""Area under the margin."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, mean_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("aum", paper="arXiv:2001.10528", reads=("logit_margin",), hard="low")
def aum(dynamics: Mapping[str, Values]) -> Values:
    """Mean over the epochs of the label's logit less the largest other (Pleiss et al., 2020).

    Args:
        dynamics: `logit_margin`, shape (E, N).

    Returns:
        Shape (N,), in logits; low for mislabelled rows; NaN for a row that was not seen.
    """
    return mean_seen(dynamics["logit_margin"])
