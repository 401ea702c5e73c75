"""First-order Taylor pruning."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("taylor", paper="arXiv:1611.06440", reads="gradients")
def taylor(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep the weights whose removal would change the loss most, to first order (Molchanov et al., 2016).

    Args:
        weight: Of any shape.
        signal: Gradient of the step's loss, shape of the weight.

    Returns:
        |gradient * weight| in fp32, loss units a step, shape of the weight.
    """
    return (signal.float() * weight.detach().float()).abs()
