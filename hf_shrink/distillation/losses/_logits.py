"""Logits softened to log-probabilities, and the precision in which losses compute."""

import torch.nn.functional as F
from torch import Tensor


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Soften logits.

    Args:
        logits: Shape (..., C), any floating dtype.
        temperature: Above 0; higher is softer.

    Returns:
        Natural logarithms, same shape, in fp32 or wider.
    """
    return F.log_softmax(wide(logits) / temperature, dim=-1)


def wide(values: Tensor) -> Tensor:
    """Bring half precision to fp32, where the tail's classes and small differences survive.

    Args:
        values: Any shape and floating dtype.

    Returns:
        The values in fp32 or wider.
    """
    return values if values.element_size() >= 4 else values.float()
