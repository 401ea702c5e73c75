"""What each task compares: at which positions, which scores, against which labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.encoding import IGNORED
from hf_shrink.inputs.pooling import pool
from hf_shrink.inputs.tasks import PROBLEM_TYPES

Batch = Mapping[str, Any]
ROWS = "single_label_classification"
HIDDEN_SPAN = -1e4  # what stands at padding in a softmax over tokens: its probability is 0 and its logarithm finite


@dataclass(frozen=True)
class Reading:
    """What one batch teaches, known before any model runs.

    Args:
        heard: True where the student learns from the teacher; shape of the scores less their last axis.
        labelled: True where there is a label, shape of the labels; None in a batch without labels.
        labels: In the order of the scores; None in a batch without labels.
        rows: B.
    """

    heard: Tensor
    labelled: Tensor | None
    labels: Tensor | None
    rows: int

    def counts(self) -> Tensor:
        """Positions heard, labels, rows: what sums over this batch are divided by; shape (3,)."""
        labels = torch.zeros_like(self.heard, dtype=torch.long).sum() if self.labelled is None else self.labelled.sum()
        return torch.stack([self.heard.sum(), labels, torch.full_like(labels, self.rows)])


@dataclass(frozen=True)
class View:
    """How a task's batches and outputs are read.

    Args:
        task: Name in `TASKS`.
        outputs: What the scores are: "classes" or "spans" of a softmax, independent "labels", "values", "features".
        read: Makes a `Reading` of a batch.
        scores: Takes a model's outputs and the batch, and gives scores of shape (..., C).
    """

    task: str
    outputs: str
    read: Callable[[Batch], Reading]
    scores: Callable[[Any, Batch], Tensor]

    @property
    def one_vector_a_row(self) -> bool:
        """Whether the scores have shape (B, C), so that rows can be compared with each other."""
        return self.read is _read_rows


def view_of(task: str, config: PretrainedConfig, *, pooling: str, hide_padding: bool) -> View:
    """Find how a task is read.

    Args:
        task: Name in `TASKS`.
        config: The student's config.
        pooling: Name in `POOLINGS`, for embeddings.
        hide_padding: Take padding out of a softmax over tokens; without, the scores are the model's own.

    Returns:
        Its view.
    """
    kind = task
    if task == "image_classification":
        kind = config.problem_type or ("regression" if config.num_labels == 1 else ROWS)
    elif task == "audio_classification":
        kind = ROWS
    if kind == "question_answering":
        return View(task, "spans", _read_spans, partial(_span_scores, hide_padding=hide_padding))
    if kind == "feature_extraction":
        return View(task, "features", _read_rows, partial(_pooled, pooling=pooling))
    outputs = {"multi_label_classification": "labels", "regression": "values"}.get(kind, "classes")
    return View(task, outputs, _READERS[kind], _logits)


def label_loss(view: View, scores: Tensor, reading: Reading, count: Tensor, smoothing: float = 0.0) -> Tensor:
    """The task's loss on its labels, as transformers' models compute it.

    Args:
        view: The task.
        scores: Shape (..., C).
        reading: The batch, with labels.
        count: Labels that the loss is averaged over, a scalar; where they are those of this batch, the loss is the
            model's own to the last bit.
        smoothing: Share of the target that is spread over all classes, in [0, 1].

    Returns:
        Scalar.
    """
    labels: Any = reading.labels
    scores = scores.float()
    if view.outputs == "classes":
        rows = scores.reshape(-1, scores.shape[-1])
        return F.cross_entropy(rows, labels.reshape(-1), reduction="sum", label_smoothing=smoothing) / count
    if view.outputs == "spans":  # start and end apart, as the models add them
        sides = [F.cross_entropy(scores[:, i], labels[:, i], reduction="sum") for i in range(2)]
        return (sides[0] + sides[1]) / count
    labels = labels.reshape(scores.shape).float()
    if view.outputs == "values":
        return F.mse_loss(scores, labels, reduction="sum") / count
    known: Any = reading.labelled
    mean = F.binary_cross_entropy_with_logits(scores, labels, weight=known.float())
    return mean * (scores.numel() / count)  # its backward divides last: only a mean gives the same bits


def agreement(view: View, student: Tensor, teacher: Tensor, heard: Tensor) -> Tensor | None:
    """Positions at which student and teacher decide alike.

    Args:
        view: The task.
        student: Scores of shape (..., C).
        teacher: Same shape.
        heard: Positions that count.

    Returns:
        Their number, a scalar (labels of a multi-label row count as shares of it), or None where nothing is decided.
    """
    if view.outputs in ("classes", "spans"):
        return ((student.argmax(-1) == teacher.argmax(-1)) & heard).sum()
    if view.outputs == "labels":
        return (((student > 0) == (teacher > 0)).double().mean(-1) * heard).sum()
    return None


def with_decoder_inputs(batch: Batch, config: PretrainedConfig) -> Batch:
    """Give a decoder what it reads: the labels, one to the right; models make this themselves only with a loss.

    Args:
        batch: A batch of an encoder-decoder.
        config: With `decoder_start_token_id` and `pad_token_id`.

    Returns:
        The batch with "decoder_input_ids".

    Raises:
        ShrinkError: If there are neither labels nor decoder inputs.
    """
    if batch.get("decoder_input_ids") is not None:
        return batch
    labels = batch.get("labels")
    if labels is None:
        raise ShrinkError(
            "`labels` must be in every batch of an encoder-decoder, got none. A teacher can only be asked about a "
            "text: let it generate one first and give that as labels."
        )
    start, pad = config.decoder_start_token_id, config.pad_token_id
    ids = F.pad(labels[:, :-1], (1, 0), value=start)  # (B, T)
    return {**batch, "decoder_input_ids": ids.masked_fill(ids == IGNORED, pad)}


# ---------------------------------------------------------------------- batches
def _read_rows(batch: Batch) -> Reading:
    first = next(value for value in batch.values() if isinstance(value, Tensor))
    labels = batch.get("labels")
    heard = torch.ones(len(first), dtype=torch.bool, device=first.device)
    return Reading(heard, None if labels is None else labels != IGNORED, labels, len(first))


def _read_values(batch: Batch) -> Reading:
    reading = _read_rows(batch)  # any number is a target, -100 too
    labelled = None if reading.labels is None else torch.ones_like(reading.labels, dtype=torch.bool)
    return Reading(reading.heard, labelled, reading.labels, reading.rows)


def _read_tokens(batch: Batch) -> Reading:
    attended, labels = _attended(batch), batch.get("labels")
    if labels is None:
        return Reading(attended, None, None, len(attended))
    labelled = labels != IGNORED
    # Only where the data marks one token a word is the teacher asked; a row without any mark is asked at each token.
    return Reading(labelled | (attended & ~labelled.any(-1, keepdim=True)), labelled, labels, len(labels))


def _read_masked(batch: Batch) -> Reading:
    labels = batch.get("labels")
    if labels is None:
        attended = _attended(batch)
        return Reading(attended, None, None, len(attended))
    return Reading(labels != IGNORED, labels != IGNORED, labels, len(labels))


def _read_causal(batch: Batch) -> Reading:
    labels = batch.get("labels")
    if labels is None:
        attended = _attended(batch)
        heard = attended & F.pad(attended, (0, 1), value=False)[:, 1:]  # the last token has no next one
        return Reading(heard, None, None, len(heard))
    # Shifting the labels leaves the logits whole: a slice of them would be copied, V wide.
    reading = _read_masked({"labels": F.pad(labels, (0, 1), value=IGNORED)[:, 1:]})
    # What padding on the left says about the first token is in the models' own loss; no teacher is asked about it.
    return replace(reading, heard=reading.heard & _attended({**batch, "labels": labels}))


def _read_spans(batch: Batch) -> Reading:
    tokens = _attended(batch)
    heard = torch.ones(len(tokens), 2, dtype=torch.bool, device=tokens.device)
    if batch.get("start_positions") is None:
        return Reading(heard, None, None, len(tokens))
    labels = torch.stack([batch[side].reshape(-1) for side in ("start_positions", "end_positions")], dim=1)
    outside = (labels < 0) | (labels >= tokens.shape[1])  # answers that were cut off
    labels = labels.masked_fill(outside, IGNORED)
    return Reading(heard, ~outside, labels, len(tokens))


def _attended(batch: Batch) -> Tensor:
    mask = batch.get("attention_mask")
    if mask is not None:
        return mask.bool()
    ids = next(value for value in batch.values() if isinstance(value, Tensor) and value.ndim > 1)
    return torch.ones(ids.shape[:2], dtype=torch.bool, device=ids.device)


_READERS: Mapping[str, Callable[[Batch], Reading]] = MappingProxyType(
    {
        **dict.fromkeys(PROBLEM_TYPES, _read_rows),
        "regression": _read_values,
        "token_classification": _read_tokens,
        "masked_lm": _read_masked,
        "causal_lm": _read_causal,
        "seq2seq_lm": _read_masked,
    }
)


# ---------------------------------------------------------------------- outputs
def _logits(outputs: Any, batch: Batch) -> Tensor:
    return outputs.logits


def _span_scores(outputs: Any, batch: Batch, hide_padding: bool) -> Tensor:
    scores = torch.stack([outputs.start_logits, outputs.end_logits], dim=1)  # (B, 2, T)
    mask = batch.get("attention_mask")
    if mask is None or not hide_padding:
        return scores
    return scores.masked_fill(~mask.bool().unsqueeze(1), HIDDEN_SPAN)


def _pooled(outputs: Any, batch: Batch, pooling: str) -> Tensor:
    return pool(outputs.last_hidden_state, batch.get("attention_mask"), pooling)
