"""Fisher pruning."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("fisher", paper="arXiv:1801.05787", reads="gradients")
def fisher(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep the weights whose removal would raise the loss most, by the Fisher information (Theis et al., 2018).

    Its diagonal alone is used, and that of whole optimizer steps: the larger a step's batch, the smaller its scale,
    which moves no weight before another.

    Args:
        weight: Of any shape.
        signal: Gradient of the step's loss, shape of the weight.

    Returns:
        Half of (gradient * weight) squared in fp32, shape of the weight.
    """
    return 0.5 * (signal.float() * weight.detach().float()).square()
