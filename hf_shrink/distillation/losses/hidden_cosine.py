"""Cosine distance of hidden vectors."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses._vectors import cosine_distance
from hf_shrink.errors import ShrinkError


@LOSSES.add("hidden_cosine", paper="arXiv:1910.01108", compares="positions", outputs=("hidden", "features"))
def hidden_cosine(
    student_vectors: Tensor, teacher_vectors: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Turn the student's hidden vectors to the teacher's direction (DistilBERT, Sanh et al., 2019).

    The length of the vectors is free: a student whose vectors have another size than its teacher's silently scores as
    well, which matters where later layers are the teacher's.

    Args:
        student_vectors: Of tokens or pooled, shape (..., D), any floating dtype; computed in fp32 or wider.
        teacher_vectors: Same shape.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        One minus cosine per position, 0 to 2, shape (...); 1 where one of them is zero.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_vectors, teacher_vectors, temperature, "vectors"):
        raise ShrinkError(fault)
    return cosine_distance(wide(student_vectors), wide(teacher_vectors))
