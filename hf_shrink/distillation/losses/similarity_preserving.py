"""Similarities among the rows of a batch."""

import torch
from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import temperature_fault
from hf_shrink.distillation.losses._vectors import unit
from hf_shrink.errors import ShrinkError


@LOSSES.add(
    "similarity_preserving", paper="arXiv:1907.09682", compares="rows", outputs=("classes", "labels", "features")
)
def similarity_preserving(
    student_vectors: Tensor, teacher_vectors: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Keep rows as alike among themselves as the teacher has them (Tung & Mori, 2019).

    The products of all rows with each other, each row of them scaled to length 1, are compared: the widths may differ,
    and turning or stretching all vectors changes nothing. Rows meet only within one batch on one device: gradient
    accumulation silently adds no pairs. A student whose vectors are all zero gets no gradient.

    Args:
        student_vectors: One vector a row, shape (B, D), B at least 2, any floating dtype; computed in fp32 or wider.
        teacher_vectors: Shape (B, D'), the same rows.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Squared difference of similarities, mean over the row's pairs, shape (B,), 0 to 4/B; its mean over the batch is
        the paper's loss.

    Raises:
        ShrinkError: If the inputs are not one vector a row, the rows differ in number or are fewer than 2, or the
            temperature is not above 0.
    """
    if fault := _rows_fault(student_vectors, teacher_vectors) or temperature_fault(temperature):
        raise ShrinkError(fault)
    return (_similarities(wide(student_vectors)) - _similarities(wide(teacher_vectors))).square().mean(-1)


def _similarities(vectors: Tensor) -> Tensor:
    """Products of rows (B, D) with each other, each row of them at length 1; shape (B, B)."""
    with torch.autocast(vectors.device.type, enabled=False):  # it would multiply matrices in half precision
        # A vector's own length drops out of its row of products: taken out first, large vectors do not overflow.
        return unit(unit(vectors) @ vectors.T)


def _rows_fault(student: Tensor, teacher: Tensor) -> str | None:
    for name, vectors in (("student_vectors", student), ("teacher_vectors", teacher)):
        if vectors.ndim != 2:
            return (
                f"`{name}` must have shape (rows, width), got {tuple(vectors.shape)}. Pool the tokens of a row to one "
                "vector first."
            )
    if len(student) != len(teacher):
        return (
            f"`teacher_vectors` must have the {len(student)} rows of `student_vectors`, got {len(teacher)}. Show both "
            "models the same batch."
        )
    if len(student) < 2:
        return (
            f"`student_vectors` must have at least 2 rows, got {len(student)}: a row alone has no similarity to "
            "preserve. Raise the batch size per device, and drop a last batch of one row (dataloader_drop_last=True)."
        )
    return None
