"""Kullback-Leibler divergence of attention distributions."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses._scores import divergence
from hf_shrink.errors import ShrinkError


@LOSSES.add("attention_kl", paper="arXiv:2004.02984", compares="positions", outputs=("attention",))
def attention_kl(
    student_scores: Tensor, teacher_scores: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Let each head attend to what the teacher's head attends to (MobileBERT, Sun et al., 2020).

    Heads are compared by their number: a student that has learned the teacher's heads in another order silently
    unlearns them. MiniLM (arXiv:2002.10957) has the same term, on the last layers alone.

    Args:
        student_scores: Scaled products of queries and keys before the softmax, shape (..., T), -inf where a key is
            masked; any floating dtype, the softmax runs in fp32 or wider.
        teacher_scores: Same shape, the same heads, queries and keys. A key that one of the two masks is left out of
            both.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Nats per query, shape (...); 0 where all keys are masked.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_scores, teacher_scores, temperature, "scores"):
        raise ShrinkError(fault)
    return divergence(student_scores, teacher_scores)
