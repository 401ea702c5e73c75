"""Mean squared difference of hidden vectors."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("hidden_mse", paper="arXiv:1909.10351", compares="positions", outputs=("hidden", "features"))
def hidden_mse(
    student_vectors: Tensor, teacher_vectors: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the teacher's hidden vectors number by number (TinyBERT, Jiao et al., 2019).

    Where the widths differ, the paper projects the student's vectors first; that is the caller's part. Few dimensions
    of great size, which transformers tend to have, silently outweigh all the others.

    Args:
        student_vectors: Of tokens or pooled, shape (..., D), any floating dtype; computed in fp32 or wider.
        teacher_vectors: Same shape.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Squared difference per position, mean over D, shape (...).

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_vectors, teacher_vectors, temperature, "vectors"):
        raise ShrinkError(fault)
    return (wide(student_vectors) - wide(teacher_vectors)).square().mean(-1)
