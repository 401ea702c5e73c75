"""Relations among the tokens within one layer."""

from torch import Tensor

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._pairs import pair_fault
from hf_shrink.distillation.losses._scores import divergence
from hf_shrink.errors import ShrinkError


@LOSSES.add("minilm_relation", paper="arXiv:2012.15828", compares="positions", outputs=("relations",))
def minilm_relation(
    student_relations: Tensor, teacher_relations: Tensor, *, labels: Tensor | None = None, temperature: float = 2.0
) -> Tensor:
    """Keep queries, keys and values as alike among themselves as the teacher has them (MiniLMv2, Wang et al., 2020).

    Both models' vectors are split anew into equally many relation heads, so that widths and numbers of heads may
    differ. Turning all vectors of a relation head changes nothing.

    Args:
        student_relations: Scaled products of a token's query, key or value with those of all tokens, shape (..., T),
            -inf where a token is masked; any floating dtype, the softmax runs in fp32 or wider.
        teacher_relations: Same shape, the same relation heads and tokens. A token that one of the two masks is left
            out of both.
        labels: Unused; part of the signature that all losses share.
        temperature: Without effect, though it must be above 0; part of the shared signature.

    Returns:
        Nats per token, shape (...); 0 where all tokens are masked. The paper adds up the means over queries, keys and
        values; a mean over the three is a third of that.

    Raises:
        ShrinkError: If the shapes differ or the temperature is not above 0.
    """
    if fault := pair_fault(student_relations, teacher_relations, temperature, "relations"):
        raise ShrinkError(fault)
    return divergence(student_relations, teacher_relations)
