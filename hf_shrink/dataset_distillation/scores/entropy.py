"""Entropy of the answer."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, last_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("entropy", paper="arXiv:1906.11829", reads=("entropy",), hard="high")
def entropy(dynamics: Mapping[str, Values]) -> Values:
    """Entropy of the answer in the last epoch (as in selection via proxy, Coleman et al., 2019).

    Args:
        dynamics: `entropy`, shape (E, N).

    Returns:
        Shape (N,), nats; high where the model wavers, whatever the label; NaN for a row that was not seen.
    """
    return last_seen(dynamics["entropy"])
