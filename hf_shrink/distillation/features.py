"""What a student and its teacher are compared by within their layers: hidden states, attention, relations."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.distillation.attention_capture import (
    AttentionCapture,
    AttentionLayout,
    Projected,
    attention_layout,
    watching,
)
from hf_shrink.distillation.attention_match import AttentionMatch, match_attention, match_relations
from hf_shrink.distillation.hidden import HiddenMatch, Pairs, depth_and_width, layer_pairs
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.teacher import Taught
from hf_shrink.errors import ShrinkError

ON_ATTENTION = ("attention_weight", "relation_weight")


@dataclass(frozen=True)
class Features:
    """The terms within the layers; there are none by default.

    Args:
        hidden: Compares hidden states, where that is wanted.
        attention: Compare queries, keys and values.
        student: Catches the student's.
        teacher: Catches the teacher's.
        projections: What of the terms is learned, beside the student.
    """

    hidden: HiddenMatch | None = None
    attention: tuple[AttentionMatch, ...] = ()
    student: AttentionCapture | None = None
    teacher: AttentionCapture | None = None
    projections: nn.ModuleList = field(default_factory=nn.ModuleList)

    def __bool__(self) -> bool:
        return bool(self.weights)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, by the name that the log gives it."""
        hidden = {} if self.hidden is None else {"hidden_loss": self.hidden.weight}
        return hidden | {match.name: match.weight for match in self.attention}

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Layers of the teacher whose states are compared."""
        return () if self.hidden is None else self.hidden.teacher_layers

    @property
    def wanted(self) -> dict[str, bool]:
        """What the student's `forward` is to put out."""
        return {} if self.hidden is None else {"output_hidden_states": True}

    def watch(self, student: nn.Module) -> AbstractContextManager[list[Projected]]:
        """Catch what the student's attention projects.

        Args:
            student: Without its wrappers.

        Returns:
            A context with a list that is filled at its end.
        """
        return watching(student, self.student)

    def terms(
        self, outputs: Any, projected: Sequence[Projected], taught: Taught, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Compare.

        Args:
            outputs: The student's.
            projected: Of `watch`.
            taught: What the teacher says.
            mask: Shape (B, T), nonzero at real tokens, or None.

        Returns:
            Each term, a value a row, shape (B,).
        """
        terms = {match.name: match(projected, taught.projected, mask) for match in self.attention}
        if self.hidden is not None:
            terms["hidden_loss"] = self.hidden(outputs.hidden_states, taught.hidden, mask)
        return terms


def make_features(
    student: PretrainedConfig, teacher: PretrainedConfig, args: DistillationTrainingArguments
) -> Features:
    """Choose what is compared.

    Args:
        student: The student's config.
        teacher: The teacher's.
        args: With the weights, the losses and `layer_map`.

    Returns:
        The terms whose weight is above 0.

    Raises:
        ShrinkError: If the two cannot be compared in this way.
    """
    wanted = [name for name in ("hidden_weight", *ON_ATTENTION) if getattr(args, name)]
    if not wanted:
        return Features()
    depth, width = depth_and_width(student, "model", wanted[0])
    teacher_depth, teacher_width = depth_and_width(teacher, "teacher_model", wanted[0])
    pairs = layer_pairs(args.layer_map, depth, teacher_depth)
    hidden = _hidden_match(pairs, (width, teacher_width), args) if args.hidden_weight else None
    features = Features(hidden, projections=nn.ModuleList() if hidden is None else hidden.projections)
    if wanted == ["hidden_weight"]:
        return features
    if any(layer < 0 for _, layer in pairs):  # for hidden states that is the embeddings
        raise ShrinkError(
            f"`layer_map` must give each layer of the student one of the teacher's where `{wanted[-1]}` is above 0, "
            f'got {args.layer_map!r} for a teacher of fewer layers. Use "last" or pairs such as "0:0,1:2".'
        )
    if args.torch_compile:
        raise ShrinkError(
            f"`torch_compile` must be False where `{wanted[-1]}` is above 0, got True: a compiled model runs past the "
            "hooks on its projections. Leave it out."
        )
    own = attention_layout(student, "model", wanted[-1])
    theirs = attention_layout(teacher, "teacher_model", wanted[-1])
    return replace(
        features,
        attention=_attention_matches(own, theirs, args),
        student=AttentionCapture(own, tuple(layer for layer, _ in pairs)),
        teacher=AttentionCapture(theirs, tuple(layer for _, layer in pairs)),
    )


def _attention_matches(
    student: AttentionLayout, teacher: AttentionLayout, args: DistillationTrainingArguments
) -> tuple[AttentionMatch, ...]:
    matches = []
    if args.attention_weight:
        matches.append(match_attention(args.attention_weight, args.attention_loss, student, teacher))
    if args.relation_weight:
        matches.append(match_relations(args.relation_weight, args.relation_loss, student, teacher))
    return tuple(matches)


def _hidden_match(pairs: Pairs, widths: tuple[int, int], args: DistillationTrainingArguments) -> HiddenMatch:
    with torch.random.fork_rng(devices=[]):  # the same projections in every process, and no other random choice moved
        torch.manual_seed(args.seed)
        return HiddenMatch(args.hidden_weight, pairs, LOSSES[args.hidden_loss].function, args.pooling, widths)
