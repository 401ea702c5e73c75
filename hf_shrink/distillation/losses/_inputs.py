"""What losses ask of their two inputs, and the precision in which they compute.

A check gives the message of the error, or None; the loss raises it, and so documents it.
"""

import math

from torch import Tensor


def logits_fault(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> str | None:
    """What is wrong with logits over different classes or a senseless temperature.

    Args:
        student_logits: Shape (..., C).
        teacher_logits: Must have the same shape: broadcasting would compare the wrong positions silently.
        temperature: Must be finite and above 0, also where it has no effect.

    Returns:
        The error's message, or None.
    """
    if student_logits.shape != teacher_logits.shape:
        return (
            f"`teacher_logits` must have the shape of `student_logits` {tuple(student_logits.shape)}, got "
            f"{tuple(teacher_logits.shape)}. Align the classes of teacher and student first."
        )
    if not 0 < temperature < math.inf:
        return f"`temperature` must be a finite number above 0, got {temperature}. Use 1.0 for the plain distribution."
    return None


def hidden_fault(student_hidden: Tensor, teacher_hidden: Tensor) -> str | None:
    """What is wrong with hidden states of different shapes.

    Args:
        student_hidden: Shape (..., D).
        teacher_hidden: Must have the same shape: broadcasting would compare the wrong positions silently.

    Returns:
        The error's message, or None.
    """
    if student_hidden.shape != teacher_hidden.shape:
        return (
            f"`teacher_hidden` must have the shape of `student_hidden` {tuple(student_hidden.shape)}, got "
            f"{tuple(teacher_hidden.shape)}. Project the student's to the teacher's width first."
        )
    return None


def wide(values: Tensor) -> Tensor:
    """Bring half precision to fp32, where the tail's classes and small differences survive.

    Args:
        values: Any shape and floating dtype.

    Returns:
        The values in fp32 or wider.
    """
    return values if values.element_size() >= 4 else values.float()
