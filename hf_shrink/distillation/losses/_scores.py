"""Scores over keys, some of which are masked: their softmax and their divergence."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_shrink.distillation.losses._logits import wide


def kept(student: Tensor, teacher: Tensor) -> Tensor:
    """Keys that neither model masks.

    Args:
        student: Shape (..., T), -inf where a key is masked.
        teacher: Same shape.

    Returns:
        True where both are no -inf; same shape.
    """
    return ~(torch.isneginf(student) | torch.isneginf(teacher))


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the softmax over the keys that neither masks.

    Args:
        student: Shape (..., T), any floating dtype, -inf where a key is masked; the softmax runs in fp32 or wider.
        teacher: Same shape.

    Returns:
        Nats, shape (...); 0 with a gradient of 0 where every key is masked.
    """
    real = kept(student, teacher)
    # The least finite number in place of -inf, whose difference from itself is NaN: it too has probability 0.
    own, theirs = (
        F.log_softmax(values.masked_fill(~real, torch.finfo(values.dtype).min), dim=-1)
        for values in (wide(student), wide(teacher))
    )
    return F.kl_div(own, theirs, log_target=True, reduction="none").sum(-1)
