"""What losses on logits ask of their two inputs, and the precision in which they compute."""

import math

import torch.nn.functional as F
from torch import Tensor


def logits_fault(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> str | None:
    """What is wrong with logits over different classes or a senseless temperature.

    Args:
        student_logits: Shape (..., C).
        teacher_logits: Must have the same shape: broadcasting would compare the wrong positions silently.
        temperature: Must be finite and above 0, also where it has no effect.

    Returns:
        The error's message, which the loss raises and so documents, or None.
    """
    if student_logits.shape != teacher_logits.shape:
        return (
            f"`teacher_logits` must have the shape of `student_logits` {tuple(student_logits.shape)}, got "
            f"{tuple(teacher_logits.shape)}. Align the classes of teacher and student first."
        )
    if not 0 < temperature < math.inf:
        return f"`temperature` must be a finite number above 0, got {temperature}. Use 1.0 for the plain distribution."
    return None


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
