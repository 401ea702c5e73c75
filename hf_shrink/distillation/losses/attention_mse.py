"""Mean squared difference of attention scores."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses._scores import kept
from hf_shrink.errors import ShrinkError


@LOSSES.add("attention_mse", paper="arXiv:1909.10351", compares="positions", outputs=("attention",))
def attention_mse(
    student_scores: Tensor, teacher_scores: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Match the teacher's attention scores before their softmax (TinyBERT, Jiao et al., 2019).

    A constant on all scores of a query counts, though attention is the same with it. Heads are compared by their
    number, as in `attention_kl`.

    Args:
        student_scores: Scaled products of queries and keys, shape (..., T), -inf where a key is masked; any floating
            dtype, computed in fp32 or wider.
        teacher_scores: Same shape, the same heads, queries and keys. A key that one of the two masks is left out.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Squared difference per query, mean over the keys that are not masked, shape (...); 0 where all are.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_scores, teacher_scores, temperature, "scores"):
        raise ShrinkError(fault)
    real = kept(student_scores, teacher_scores)
    own, theirs = (wide(scores).masked_fill(~real, 0.0) for scores in (student_scores, teacher_scores))
    return (own - theirs).square().sum(-1) / real.sum(-1).clamp(min=1)
