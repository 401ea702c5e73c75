"""Mean squared difference of predicted values."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.errors import ShrinkError


@LOSSES.add("regression_mse", paper="arXiv:1908.00858", compares="positions", outputs=("values",))
def regression_mse(
    student_values: Tensor, teacher_values: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the values that the teacher predicts (after Saputra et al., 2019, every row weighing the same).

    This is the imitation part of the paper, without its trust in a teacher by how near the truth it is: the student
    silently learns the teacher's errors too, unless labels stand beside it. Values of different units weigh by the
    square of their spread.

    Args:
        student_values: Shape (..., C), any floating dtype; computed in fp32 or wider.
        teacher_values: Same shape, the same values in the same order and units.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Squared units of the values per position, mean over the values, shape (...).

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_values, teacher_values, temperature, "values"):
        raise ShrinkError(fault)
    return (wide(student_values) - wide(teacher_values)).square().mean(-1)
