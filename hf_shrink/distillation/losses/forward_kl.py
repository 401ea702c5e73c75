"""Forward Kullback-Leibler divergence."""

import torch.nn.functional as F
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import log_probabilities
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("forward_kl", paper="arXiv:1503.02531", compares="positions", outputs=("classes", "spans"))
def forward_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the teacher's softened distribution (Hinton et al., 2015).

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
    divergence = F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)  # (...)
    return divergence * temperature**2
