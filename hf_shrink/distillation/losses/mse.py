"""Mean squared difference of logits."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("mse", paper="arXiv:2105.08919", compares="positions", outputs=("classes", "labels", "values"))
def mse(
    student_logits: Tensor, teacher_logits: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the teacher's logits themselves, not their softmax (Kim et al., 2021).

    Unlike the divergences it also teaches what softmax leaves out: a constant added to all logits counts.

    Args:
        student_logits: Shape (..., C), any floating dtype; computed in fp32 or wider.
        teacher_logits: Same shape, over the same classes in the same order.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Squared logits per position, mean over the classes, shape (...).

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_logits, teacher_logits, temperature, "logits"):
        raise ShrinkError(fault)
    return (wide(student_logits) - wide(teacher_logits)).square().mean(-1)
