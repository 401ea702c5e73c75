"""Outliers of the activations, handed over to the weights."""

import torch
from torch import Tensor

LEAST = 1e-3  # of the largest channel: one that is hardly ever used is not to be blown up


def smoothing_factors(inputs: Tensor, weights: Tensor, strength: float) -> Tensor:
    """What to multiply the channels of a product's input by, and to divide its weights by (Xiao et al., 2022).

    The product stays the same. A few channels are a hundred times as large as the others, and set the one scale that
    all inputs share; weights have a scale for each output, and take a part of it more easily.

    Args:
        inputs: Largest input of each channel, shape (K,).
        weights: Largest weight of each channel, shape (K,).
        strength: How much is handed over, in [0, 1]: at 0 the inputs stay as they are, at 1 all channels are made
            equally large.

    Returns:
        Shape (K,), above 0; their geometric mean is 1.
    """
    if strength == 0:
        return torch.ones_like(inputs)
    share = _floored(weights) ** (1 - strength) / _floored(inputs) ** strength
    return share / share.log().mean().exp()


def _floored(values: Tensor) -> Tensor:
    largest = values.max()
    return values.clamp(min=(LEAST * largest).item()) if largest > 0 else torch.ones_like(values)
