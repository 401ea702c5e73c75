"""Cosine distance of logits."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses._vectors import cosine_distance
from hf_shrink.errors import ShrinkError


@LOSSES.add("cosine", paper="arXiv:1910.01108", compares="positions", outputs=("classes", "features"))
def cosine(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Turn the student's logits to the teacher's direction (after Sanh et al., 2019, there on hidden states).

    The length of the logits is free, and with it how sure the student is: alone, this loss silently leaves it
    uncalibrated.

    Args:
        student_logits: Shape (..., C), any floating dtype; computed in fp32 or wider.
        teacher_logits: Same shape, over the same classes in the same order.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        One minus cosine per position, 0 to 2, shape (...); 1 where one of them is zero.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_logits, teacher_logits, temperature, "logits"):
        raise ShrinkError(fault)
    return cosine_distance(wide(student_logits), wide(teacher_logits))
