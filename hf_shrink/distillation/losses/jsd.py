"""Generalized Jensen-Shannon divergence."""

import math

import torch
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import log_probabilities
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses.forward_kl import forward_kl
from hf_shrink.distillation.losses.reverse_kl import reverse_kl
from hf_shrink.errors import ShrinkError


@LOSSES.add("jsd", paper="arXiv:2306.13649", compares="positions", outputs=("classes", "spans"))
def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    labels: Tensor | None = None,
    temperature: float = 2.0,
    beta: float = 0.5,
) -> Tensor:
    """Go between forward and reverse divergence through a mixture (Agarwal et al., 2023).

    With mixture = beta * teacher + (1 - beta) * student it is
    beta * KL(teacher || mixture) + (1 - beta) * KL(student || mixture), which vanishes as beta nears 0 or 1. There the
    two divergences stand by convention (trl's too): beta 0 is `forward_kl`, beta 1 is `reverse_kl`. Between, and near
    the teacher, loss and gradient are about beta * (1 - beta) of theirs: a quarter at 0.5, a silent hundredth at 0.01.

    Args:
        student_logits: Shape (..., C), any floating dtype; the softmax runs in fp32 or wider.
        teacher_logits: Same shape, over the same classes in the same order.
        labels: Unused; part of the signature that all losses share.
        temperature: Above 0; higher is softer.
        beta: Share of the teacher in the mixture, in [0, 1].

    Returns:
        Nats per position, shape (...), times temperature squared: the gradient keeps its size at any temperature.

    Raises:
        ShrinkError: If the shapes differ, the temperature is not above 0 or beta is outside [0, 1].
    """
    if fault := pair_fault(student_logits, teacher_logits, temperature, "logits"):
        raise ShrinkError(fault)
    if not 0 <= beta <= 1:
        raise ShrinkError(
            f"`beta` must be in [0, 1], got {beta}. 0 is forward KL, 1 reverse KL, 0.5 treats both alike."
        )
    if beta in (0, 1):
        limit = reverse_kl if beta else forward_kl
        return limit(student_logits, teacher_logits, temperature=temperature)
    student = log_probabilities(student_logits, temperature)  # (..., C)
    teacher = log_probabilities(teacher_logits, temperature)  # (..., C)
    log_beta, log_rest = math.log(beta), math.log1p(-beta)
    from_teacher = _to_mixture(teacher, student, log_beta, log_rest)  # (...)
    from_student = _to_mixture(student, teacher, log_rest, log_beta)  # (...)
    return (beta * from_teacher + (1 - beta) * from_student) * temperature**2


def _to_mixture(own: Tensor, other: Tensor, log_own: float, log_other: float) -> Tensor:
    """KL(own || mixture) of log-probabilities (..., C), with the log of each one's share in the mixture."""
    # The log of a ratio near 1, not a difference of large logs: over a vocabulary that rounds a hundred times less.
    log_ratio = torch.logaddexp(other - own + log_other, own.new_full((), log_own))  # (..., C)
    return -(own.exp() * log_ratio).sum(-1)
