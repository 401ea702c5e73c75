"""Ask a teacher about rows, and put what it says into a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from hf_shrink.distillation.cache_columns import (
    KEY_COLUMN,
    LIKELIEST_COLUMN,
    SCORES_COLUMN,
    hidden_column,
    pack,
    pack_as,
)
from hf_shrink.distillation.hidden import depth_and_width
from hf_shrink.distillation.row_keys import RowReader
from hf_shrink.distillation.teacher import Teacher, config_of
from hf_shrink.distillation.token_packing import TokenPacking, packing_of
from hf_shrink.distillation.views import View, view_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.pooling import POOLINGS, pooling_of
from hf_shrink.inputs.tasks import inner_model


@dataclass(frozen=True)
class Answering:
    """A teacher with all that it takes to ask it.

    Args:
        teacher: The teacher.
        view: How its outputs are read.
        reader: How its rows are read.
        device: Where it computes.
        layers: Layers whose hidden states are kept, counted from 0.
        embedding_pooling: How embeddings are made; None for other tasks.
        packing: How the likeliest tokens are kept; None keeps all scores.
    """

    teacher: Teacher
    view: View
    reader: RowReader
    device: torch.device
    layers: tuple[int, ...]
    embedding_pooling: str | None
    packing: TokenPacking | None

    def table(self, batch: Mapping[str, Any], keys: Sequence[bytes], places: Sequence[int]) -> pa.Table:
        """Ask about some rows of a batch.

        Args:
            batch: What a collator made.
            keys: Of its B rows.
            places: The rows to ask about.

        Returns:
            A row each: key, scores and hidden states.
        """
        if len(places) < len(keys):
            batch = {k: v[list(places)] if isinstance(v, Tensor) else v for k, v in batch.items()}
        taught = self.teacher(send_to_device(dict(batch), self.device), hidden=bool(self.layers))
        columns = {KEY_COLUMN: pa.array([keys[place] for place in places], pa.binary())}
        if self.packing is None:
            columns[SCORES_COLUMN] = self._scores(taught.scores, batch)
        else:
            columns[LIKELIEST_COLUMN] = pack_as(self.packing.pack, taught.scores, self.reader.scored(batch))
        for layer, states in zip(self.layers, taught.hidden, strict=True):
            own = self.reader.tokens(batch) if states.ndim == 3 else None
            columns[hidden_column(layer)] = pack(states, own, softmax=False)
        return pa.table(columns)

    def _scores(self, scores: Tensor, batch: Mapping[str, Any]) -> pa.Array:
        scores = scores.transpose(1, 2) if self.view.outputs == "spans" else scores
        return pack(scores, self.reader.scored(batch), softmax=self.view.outputs in ("classes", "spans"))


def make_answering(
    model: nn.Module,
    task: str,
    device: torch.device,
    *,
    pooling: str | None = None,
    hidden_layers: Sequence[int] | None = None,
    top_k: int | None = None,
) -> Answering:
    """Freeze a teacher, put it onto a device, and find how it is asked.

    Args:
        model: The teacher.
        task: Name in `TASKS`.
        device: Where it is to compute; one that accelerate has spread over devices stays where it is.
        pooling: Name in `POOLINGS`, or None.
        hidden_layers: Layers, counted from 0 or, if negative, from the end.
        top_k: Tokens of the vocabulary that are kept, the likeliest; None keeps all.

    Returns:
        What asks it.

    Raises:
        ShrinkError: If there is no such pooling or layer, or the task has no scores over a vocabulary to cut.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ShrinkError(f"`pooling` must be one of {sorted(POOLINGS)}, got {pooling!r}. Choose one of these.")
    config = config_of(model, "teacher")
    packing = packing_of(top_k, task, config)
    layers = _layers(model, hidden_layers or ())
    if "hf_device_map" not in vars(inner_model(model)):
        model.to(device)
    embedding_pooling = None
    if task == "feature_extraction":
        embedding_pooling = pooling or pooling_of(config.name_or_path)
    view = view_of(task, config, pooling=embedding_pooling or "mean", hide_padding=True)
    teacher = Teacher(model, view, layers=layers, pooling=pooling)
    reader = RowReader(task, teacher.parameters, config, heard_only=packing is not None)
    return Answering(teacher, view, reader, device, layers, embedding_pooling, packing)


def _layers(model: nn.Module, chosen: Sequence[int]) -> tuple[int, ...]:
    if not chosen:
        return ()
    config = config_of(model, "teacher")
    try:
        depth, _ = depth_and_width(config, "teacher")
    except ShrinkError as error:
        raise ShrinkError(
            f"`hidden_layers` must be None for this teacher ({config.model_type}): its layers are not one stack of "
            "one width. Keep the scores alone."
        ) from error
    if not all(-depth <= layer < depth for layer in chosen):
        raise ShrinkError(
            f"`hidden_layers` must lie in [-{depth}, {depth - 1}], got {list(chosen)}. Count the teacher's layers "
            "from 0, or from the end as in [-1]."
        )
    return tuple(sorted({layer % depth for layer in chosen}))
