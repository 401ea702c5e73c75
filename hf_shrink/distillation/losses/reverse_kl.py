"""Reverse Kullback-Leibler divergence."""

import torch.nn.functional as F
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import log_probabilities
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("reverse_kl", paper="arXiv:2306.08543", compares="positions", outputs=("classes", "spans"))
def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Keep the student to what its teacher finds likely (Gu et al., 2023).

    The student weighs the classes: it may leave out some of the teacher's, and pays for its own that the teacher rules
    out. This is the divergence of MiniLLM position by position, without its sampling and policy gradient.

    Args:
        student_logits: Shape (..., C), any floating dtype; the softmax runs in fp32 or wider.
        teacher_logits: Same shape, over the same classes in the same order.
        labels: Unused; part of the signature that all losses share.
        temperature: Above 0; higher is softer.

    Returns:
        Nats per position, shape (...), times temperature squared: the gradient keeps its size at any temperature.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_logits, teacher_logits, temperature, "logits"):
        raise ShrinkError(fault)
    student = log_probabilities(student_logits, temperature)  # (..., C)
    teacher = log_probabilities(teacher_logits, temperature)  # (..., C)
    divergence = F.kl_div(teacher, student, log_target=True, reduction="none").sum(-1)  # (...)
    return divergence * temperature**2
