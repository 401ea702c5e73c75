"""Random pruning, the baseline that every criterion has to beat."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("random", paper="arXiv:2003.03033", reads="noise")
def random(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep weights by lot, the baseline for the other criteria (Blalock et al., 2020).

    Args:
        weight: Of any shape.
        signal: Uniform noise of the weight's shape.

    Returns:
        The noise in fp32.
    """
    return signal.float()
