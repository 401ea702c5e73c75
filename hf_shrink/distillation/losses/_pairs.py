"""What losses ask of their two inputs and of the temperature."""

import math

from torch import Tensor

NEXT_STEPS = {
    "logits": "Align the classes of teacher and student first.",
    "values": "Compare models that predict the same values.",
    "vectors": "Project the student's vectors to the teacher's width first.",
    "scores": "Compare the same tokens, in models with equally many heads.",
    "relations": "Compare the same tokens, split into equally many relation heads.",
}


def pair_fault(student: Tensor, teacher: Tensor, temperature: float, kind: str) -> str | None:
    """What is wrong with inputs of different shapes or a senseless temperature.

    Args:
        student: Any shape.
        teacher: Must have the same shape: broadcasting would compare the wrong positions silently.
        temperature: Must be finite and above 0, also where it has no effect.
        kind: How the loss names its inputs after the model: "logits", "values", "vectors", "scores" or "relations".

    Returns:
        The error's message, which the loss raises and so documents, or None.
    """
    if student.shape != teacher.shape:
        return (
            f"`teacher_{kind}` must have the shape of `student_{kind}` {tuple(student.shape)}, got "
            f"{tuple(teacher.shape)}. {NEXT_STEPS[kind]}"
        )
    return temperature_fault(temperature)


def temperature_fault(temperature: float) -> str | None:
    """What is wrong with a senseless temperature.

    Args:
        temperature: Must be finite and above 0.

    Returns:
        The error's message, or None.
    """
    if not 0 < temperature < math.inf:
        return f"`temperature` must be a finite number above 0, got {temperature}. Use 1.0 for the plain distribution."
    return None
