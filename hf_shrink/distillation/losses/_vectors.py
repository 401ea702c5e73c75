"""Directions of vectors, safe where a vector is zero."""

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors to length 1; a zero vector stays zero.

    Args:
        vectors: Shape (..., D), fp32 or wider.

    Returns:
        Same shape.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # (..., 1)
    # A small epsilon in place of the 1 would multiply the gradient of a zero vector by a million and more.
    return vectors / torch.where(length > 0, length, 1.0)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of the angle; 1 where a vector is zero.

    Args:
        student: Shape (..., D), fp32 or wider.
        teacher: Same shape.

    Returns:
        Shape (...), from 0 (same direction) to 2 (opposite).
    """
    return 1 - (unit(student) * unit(teacher)).sum(-1)
