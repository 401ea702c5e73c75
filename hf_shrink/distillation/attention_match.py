"""Attention and relations of a student held against its teacher's, layer by layer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hf_shrink.distillation.attention_capture import AttentionLayout, Projected
from hf_shrink.distillation.hidden import mean_over_tokens
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.losses._logits import wide
from hf_shrink.errors import ShrinkError

Prepare = Callable[[Projected, Tensor | None], Tensor]


@dataclass(frozen=True)
class AttentionMatch:
    """A term on queries, keys and values.

    Args:
        name: What the log calls it.
        weight: Its weight in the loss.
        loss: Of `LOSSES`, on scores over keys.
        student: Makes the student's scores; shape (B, ..., T, T).
        teacher: Makes the teacher's; same shape.
    """

    name: str
    weight: float
    loss: Callable[..., Tensor]
    student: Prepare
    teacher: Prepare

    @property
    def projections(self) -> tuple[nn.Module, ...]:
        """None: nothing of it is learned."""
        return ()

    def __call__(self, student: Sequence[Projected], teacher: Sequence[Projected], mask: Tensor | None) -> Tensor:
        """Compare.

        Args:
            student: Of the layers that are compared.
            teacher: Of their partners, in the same order.
            mask: Shape (B, T), nonzero at real tokens, or None.

        Returns:
            Shape (B,): the mean over a row's tokens, the heads and the pairs of layers.
        """
        pairs = zip(student, teacher, strict=True)
        terms = [
            self.loss(self.student(own, mask), self.teacher(theirs, mask)) for own, theirs in pairs
        ]  # (B, ..., T)
        return torch.stack([mean_over_tokens(values.flatten(1, -2).mean(1), mask) for values in terms]).mean(0)


def match_attention(weight: float, loss: str, student: AttentionLayout, teacher: AttentionLayout) -> AttentionMatch:
    """The term on attention, head by head.

    Args:
        weight: Its weight, above 0.
        loss: Name in `LOSSES`.
        student: How the student attends.
        teacher: How the teacher does.

    Returns:
        The term.

    Raises:
        ShrinkError: If attention is more than what queries and keys tell, or if the two differ in heads or direction.
    """
    for argument, layout in (("model", student), ("teacher_model", teacher)):
        if not layout.plain:
            raise ShrinkError(
                f"`attention_weight` must be 0 for this `{argument}`, got {weight}: between its projections and its "
                "attention there are rotary or relative positions, or another scale. Use `relation_weight` or "
                "`hidden_weight`, which need no attention."
            )
    if (student.heads, student.causal) != (teacher.heads, teacher.causal):
        own, theirs = (f"{lay.heads} {'causal' if lay.causal else 'two-way'} heads" for lay in (student, teacher))
        raise ShrinkError(
            f"`attention_weight` must be 0 where the heads of the two models are no pairs, got {weight} for {own} "
            f"(student) and {theirs} (teacher). Use `relation_weight`: minilm_relation takes any number of heads."
        )
    scores: list[Prepare] = [partial(attention_scores, layout=layout) for layout in (student, teacher)]
    return AttentionMatch("attention_loss", weight, LOSSES[loss].function, *scores)


def match_relations(weight: float, loss: str, student: AttentionLayout, teacher: AttentionLayout) -> AttentionMatch:
    """The term on relations among queries, among keys and among values.

    Args:
        weight: Its weight, above 0.
        loss: Name in `LOSSES`.
        student: How the student's vectors are laid out.
        teacher: How the teacher's are.

    Returns:
        The term.
    """
    scores: Prepare = partial(relation_scores, heads=relation_heads(student, teacher))
    return AttentionMatch("relation_loss", weight, LOSSES[loss].function, scores, scores)


def relation_heads(student: AttentionLayout, teacher: AttentionLayout) -> int:
    """Into how many relation heads both models' vectors are split.

    Args:
        student: Layout of the student.
        teacher: Layout of the teacher.

    Returns:
        The student's number of heads where it divides all widths; else the greatest number that divides all numbers of
        heads, those of keys and values too.
    """
    if all(width % student.heads == 0 for width in (*student.widths, *teacher.widths)):
        return student.heads
    return math.gcd(student.heads, student.key_value_heads, teacher.heads, teacher.key_value_heads)


def attention_scores(projected: Projected, mask: Tensor | None, layout: AttentionLayout) -> Tensor:
    """What a layer's softmax is taken of.

    Args:
        projected: Of the layer.
        mask: Shape (B, T), nonzero at real tokens, or None.
        layout: Of the model.

    Returns:
        Shape (B, heads, T, T), in fp32 or wider, -inf where a key is not seen.
    """
    queries, keys = _split(projected.query, layout.heads), _split(projected.key, layout.key_value_heads)
    scores = _scaled_products(queries, keys.repeat_interleave(layout.heads // layout.key_value_heads, dim=1))
    if layout.causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return _without_padding(scores, mask)


def relation_scores(projected: Projected, mask: Tensor | None, heads: int) -> Tensor:
    """What the softmax of the relations is taken of.

    Args:
        projected: Of a layer.
        mask: Shape (B, T), nonzero at real tokens, or None.
        heads: Number of relation heads.

    Returns:
        Shape (B, 3, heads, T, T), in fp32 or wider, -inf at padding: each token also sees those after it.
    """
    vectors = [_split(part, heads) for part in projected]
    return _without_padding(torch.stack([_scaled_products(part, part) for part in vectors], dim=1), mask)


def _split(vectors: Tensor, heads: int) -> Tensor:
    return vectors.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, T, width / heads)


def _scaled_products(one: Tensor, other: Tensor) -> Tensor:
    with torch.autocast(one.device.type, enabled=False):  # it would multiply matrices in half precision
        return wide(one) @ wide(other).transpose(-1, -2) / math.sqrt(one.shape[-1])


def _without_padding(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores
    padding = ~mask.bool().reshape(len(mask), *[1] * (scores.ndim - 2), -1)  # (B, 1, ..., T)
    return scores.masked_fill(padding, -torch.inf)
