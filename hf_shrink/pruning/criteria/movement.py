"""Movement pruning."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("movement", paper="arXiv:2005.07683", reads="scores")
def movement(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep the weights that move away from zero as they are trained (Sanh et al., 2020).

    Args:
        weight: The dense weight, which a pruned one keeps: at zero its score could never move again.
        signal: Gradient of the loss by the pruned weight, shape of the weight.

    Returns:
        Gradient of the score in fp32: gradient * weight, by the straight-through estimator, shape of the weight.
    """
    return signal.float() * weight.detach().float()
