"""Decoupled knowledge distillation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.encoding import IGNORED


@LOSSES.add("dkd", paper="arXiv:2203.08679", compares="positions", outputs=("classes",))
def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    labels: Tensor | None = None,
    temperature: float = 2.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
) -> Tensor:
    """Weigh the target class and the other classes apart (Zhao et al., 2022).

    Forward KL is KL(target or not) + (1 - teacher's target probability) * KL(among the other classes): a sure teacher
    silences the second part. Here its weight is a constant. With 2 classes only the first part is left.

    Args:
        student_logits: Shape (..., C), any floating dtype; the softmax runs in fp32 or wider.
        teacher_logits: Same shape, over the same classes in the same order.
        labels: Target classes, integers in [0, C), shape (...). Where they are -100, and without any, the teacher's
            likeliest class is the target.
        temperature: Above 0; higher is softer.
        target_weight: The paper's alpha, at least 0: weight of the target against all the rest.
        non_target_weight: The paper's beta, at least 0: weight of the classes beside the target.

    Returns:
        Weighted nats per position, shape (...), times temperature squared: the gradient keeps its size at any
        temperature.

    Raises:
        ShrinkError: If the shapes differ, the labels are not one integer a position, there are fewer than 2 classes,
            the temperature is not above 0 or a weight is not a finite number of at least 0.
    """
    weights = {"target_weight": target_weight, "non_target_weight": non_target_weight}
    fault = pair_fault(student_logits, teacher_logits, temperature, "logits")
    if fault := fault or _options_fault(teacher_logits, labels, **weights):
        raise ShrinkError(fault)
    target = _targets(teacher_logits, labels)  # (..., 1)
    student, student_others = _decouple(wide(student_logits) / temperature, target)  # (..., 2), (..., C)
    teacher, teacher_others = _decouple(wide(teacher_logits) / temperature, target)
    target_part = F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)  # (...)
    other_part = F.kl_div(student_others, teacher_others, log_target=True, reduction="none").sum(-1)  # (...)
    return (target_weight * target_part + non_target_weight * other_part) * temperature**2


def _decouple(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of target and rest, and those of the other classes among themselves (0 at the target)."""
    log_p = F.log_softmax(logits, dim=-1)  # (..., C)
    # The rest is summed from its own logs: 1 - p is 0 in fp32 where the target has nearly all, and its log infinite.
    rest = log_p.scatter(-1, target, -torch.inf).logsumexp(-1, keepdim=True)  # (..., 1)
    others = F.log_softmax(logits.scatter(-1, target, -torch.inf), dim=-1)  # (..., C)
    # Equal in student and teacher, so that the target adds exp(0) * (0 - 0) to the divergence among the others.
    return torch.cat([log_p.gather(-1, target), rest], dim=-1), others.scatter(-1, target, 0.0)


def _targets(teacher_logits: Tensor, labels: Tensor | None) -> Tensor:
    likeliest = teacher_logits.argmax(-1)  # (...)
    target = likeliest if labels is None else torch.where(labels == IGNORED, likeliest, labels)
    return target.unsqueeze(-1)  # (..., 1)


def _options_fault(logits: Tensor, labels: Tensor | None, **weights: float) -> str | None:
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            return f"`{name}` must be a finite number of at least 0, got {weight}. 0 leaves that part out."
    if logits.shape[-1] < 2:
        return (
            f"`teacher_logits` must have at least 2 classes, got {logits.shape[-1]}. A number has no classes to match."
        )
    if labels is not None and (labels.is_floating_point() or labels.shape != logits.shape[:-1]):
        return (
            f"`labels` must be integers of shape {tuple(logits.shape[:-1])}, one class a position, got {labels.dtype} "
            f"of shape {tuple(labels.shape)}. Give each position one class, or -100."
        )
    return None
