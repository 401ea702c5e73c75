"""Wanda."""

from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA


@CRITERIA.add("wanda", paper="arXiv:2306.11695", reads="activations", compares="rows")
def wanda(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep the weights that are large and whose inputs are, within each output (Sun et al., 2023).

    Weights of different outputs are not on one scale: compared over a whole module, some outputs would lose nearly
    all. The paper prunes every output by the same share.

    Args:
        weight: Of any shape.
        signal: Norm of each input over the calibration rows, in a shape that fits the weight.

    Returns:
        |weight| * norm in fp32, shape of the weight.
    """
    return weight.detach().float().abs() * signal.float()
