"""Hidden states of a student held against its teacher's, layer by layer."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.pooling import pool

Pairs = tuple[tuple[int, int], ...]
LAYER_MAPS = ("uniform", "last", "skip")


def layer_pairs(layer_map: str, student_layers: int, teacher_layers: int) -> Pairs:
    """Which layer of the student is held against which of the teacher.

    Args:
        layer_map: "uniform": each layer of the student against the one at the same share of the depth; "last": the
            last layers alone; "skip": all but the last, against every k-th of the teacher (Sun et al., 2019); or pairs
            such as "0:0,1:2", counted from 0, or from the end as in "-1:-1".
        student_layers: Number of the student's layers.
        teacher_layers: Number of the teacher's.

    Returns:
        Pairs (student, teacher), counted from 0.

    Raises:
        ShrinkError: If the map is unknown, names a layer that is not there, or has nothing to compare.
    """
    if layer_map == "uniform":
        return tuple((i, (i + 1) * teacher_layers // student_layers - 1) for i in range(student_layers))
    if layer_map == "last":
        return ((student_layers - 1, teacher_layers - 1),)
    if layer_map == "skip":
        if student_layers < 2:
            raise ShrinkError(
                '`layer_map` must be "uniform" or "last" for a student of one layer, got "skip", which leaves out '
                "the last layer. Nothing would be compared."
            )
        step = teacher_layers // student_layers or 1
        return tuple((i, min((i + 1) * step, teacher_layers) - 1) for i in range(student_layers - 1))
    return _explicit(layer_map, student_layers, teacher_layers)


def _explicit(layer_map: str, *counts: int) -> Pairs:
    try:
        pairs = [tuple(int(number) for number in pair.split(":")) for pair in layer_map.split(",")]
    except ValueError:
        pairs = [()]
    for pair in pairs:
        if len(pair) != 2 or not all(-count <= i < count for i, count in zip(pair, counts, strict=True)):
            raise ShrinkError(
                f'`layer_map` must be one of {list(LAYER_MAPS)} or pairs of layers such as "0:0,1:2", with layers '
                f"below {counts[0]} (student) and {counts[1]} (teacher), got {layer_map!r}. Count the layers from 0."
            )
    return tuple((i % counts[0], j % counts[1]) for i, j in pairs)


class HiddenMatch(nn.Module):
    """The hidden term: a loss between pairs of layers, through a learned projection where the widths differ.

    The projections are trained with the student and are no part of it: what is saved is the student alone.

    Args:
        weight: Its weight in the loss.
        pairs: Of `layer_pairs`.
        loss: Of `LOSSES`, on hidden states.
        pooling: Compare one vector a row, made so; None compares token by token.
        widths: Hidden widths of student and teacher.
    """

    def __init__(
        self, weight: float, pairs: Pairs, loss: Callable[..., Tensor], pooling: str | None, widths: tuple[int, int]
    ) -> None:
        super().__init__()
        self.weight = weight
        self.pairs = pairs
        self._loss = loss
        self._pooling = pooling
        own, theirs = widths
        self.projections = nn.ModuleList(nn.Linear(own, theirs) for _ in pairs if own != theirs)

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Layers of the teacher that are compared, in the order of the pairs."""
        return tuple(teacher for _, teacher in self.pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Compare.

        Args:
            student: Hidden states as the model gives them: the embeddings' first; each of shape (B, T, D).
            teacher: The states of `teacher_layers`, of shape (B, T, D'), or (B, D') if pooled.
            mask: Shape (B, T), nonzero at real tokens, or None.

        Returns:
            Shape (B,): the mean over a row's tokens and over the pairs.
        """
        own = select_states(student, tuple(layer for layer, _ in self.pairs), mask, self._pooling)
        terms = [self._compare(i, state, teacher[i], mask) for i, state in enumerate(own)]
        return torch.stack(terms).mean(0)

    def _compare(self, pair: int, own: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        if self.projections:
            own = self.projections[pair](own)
        values = self._loss(own, theirs)  # (B,) if pooled, else (B, T)
        return values if values.ndim == 1 else mean_over_tokens(values, mask)


def mean_over_tokens(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average what each token of a row has.

    Args:
        values: Shape (B, T).
        mask: Same shape, nonzero at real tokens, or None where all are.

    Returns:
        Shape (B,); 0 in a row without tokens.
    """
    weights = torch.ones_like(values) if mask is None else mask.to(values)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def select_states(
    states: Sequence[Tensor], layers: Sequence[int], mask: Tensor | None, pooling: str | None
) -> tuple[Tensor, ...]:
    """Take what is compared out of all hidden states.

    Args:
        states: Of a model: the embeddings' first, then one a layer, each of shape (B, T, D).
        layers: Layers counted from 0.
        mask: Shape (B, T), nonzero at real tokens, or None.
        pooling: Name in `POOLINGS`, or None for the states of all tokens.

    Returns:
        One tensor a layer, of shape (B, T, D), or (B, D) if pooled.
    """
    chosen = [states[layer + 1] for layer in layers]
    return tuple(s if pooling is None else pool(s, mask, pooling) for s in chosen)


def depth_and_width(config: PretrainedConfig, argument: str, weight: str = "hidden_weight") -> tuple[int, int]:
    """Number of layers and hidden width.

    Args:
        config: Of a text, image or audio encoder, or of a decoder.
        argument: What the user calls the model.
        weight: The argument that asks for it.

    Returns:
        Layers, width.

    Raises:
        ShrinkError: If the model is an encoder-decoder, or its layers are no blocks of one width.
    """
    text = config.get_text_config()
    try:
        if not config.is_encoder_decoder:
            return text.num_hidden_layers, text.hidden_size
    except AttributeError:  # convolutions have stages, of several widths
        pass
    raise ShrinkError(
        f"`{weight}` must be 0 for this `{argument}` ({config.model_type}): its layers are not one stack of one "
        "width. Compare the logits alone."
    )
