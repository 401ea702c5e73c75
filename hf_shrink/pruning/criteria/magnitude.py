"""Magnitude pruning."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("magnitude", paper="arXiv:1506.02626", reads="weights")
def magnitude(weight: Tensor, signal: Tensor | None) -> Tensor:
    """Keep the weights that are largest (Han et al., 2015).

    Args:
        weight: Of any shape.
        signal: None.

    Returns:
        Absolute values in fp32, shape of the weight.
    """
    return weight.detach().float().abs()
