"""From logits to what a metric compares, task by task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hf_shrink.inputs.encoding import IGNORED


@dataclass(frozen=True)
class Predictions:
    """What one model said of N rows; rows without a label are left out.

    Args:
        predictions: What a metric takes: class ids (N,); label sets (N, C) of 0 and 1; numbers (N,) or (N, C); a list
            of tags for each row; for language models each row's summed negative log-likelihood (N,), in nats.
        references: The same kind; for language models the number of predicted tokens (N,).
        choices: All argmax decisions, for agreement with another model, shape (decisions,) or (N, C); None for
            regression, which decides nothing.
        correct: Which rows are right, shape (N,), where a row is right or wrong as a whole; else None.
    """

    predictions: Any
    references: Any
    choices: NDArray[Any] | None
    correct: NDArray[np.bool_] | None


def merge(parts: Sequence[Predictions]) -> Predictions:
    """Put batches together.

    Args:
        parts: At least one batch's predictions.

    Returns:
        Those of all rows.
    """

    def joined(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        return list(chain.from_iterable(values)) if isinstance(values[0], list) else np.concatenate(values)

    return Predictions(
        predictions=joined([part.predictions for part in parts]),
        references=joined([part.references for part in parts]),
        choices=joined([part.choices for part in parts]),
        correct=joined([part.correct for part in parts]),
    )


def references(task: str, labels: Sequence[Any], names: Sequence[str]) -> Any:
    """The references alone, before any model has run.

    Args:
        task: Name in `TASKS`; not that of a language model.
        labels: The rows' labels, not padded.
        names: Label names in the order of the logits; where they are missing, tags are ids.

    Returns:
        As in `Predictions`.
    """
    if task == "token_classification":
        return [_named([i for i in row if i != IGNORED], names) for row in labels]
    values = np.asarray(labels)
    if task == "regression":
        return values
    if task == "multi_label_classification":
        return (values > 0.5).astype(np.int64)
    return values[values != IGNORED]


def _classes(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    kept = labels != IGNORED
    chosen, wanted = logits[kept].argmax(-1).numpy(), labels[kept].numpy()  # (N,)
    return Predictions(chosen, wanted, chosen, chosen == wanted)


def _label_sets(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    chosen = (logits > 0).long().numpy()  # (N, C): a probability above one half
    wanted = (labels > 0.5).long().numpy()
    return Predictions(chosen, wanted, chosen, (chosen == wanted).all(-1))


def _numbers(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    found = logits.squeeze(-1) if logits.shape[-1] == 1 else logits
    return Predictions(found.double().numpy(), labels.double().numpy().reshape(found.shape), None, None)


def _tags(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    chosen = logits.argmax(-1)  # (B, T)
    kept = labels != IGNORED
    found = [_named(row[mask].tolist(), names) for row, mask in zip(chosen, kept, strict=True)]
    wanted = [_named(row[mask].tolist(), names) for row, mask in zip(labels, kept, strict=True)]
    return Predictions(found, wanted, chosen[kept].numpy(), None)


def _named(ids: Sequence[int], names: Sequence[str]) -> list[Any]:
    return [names[i] for i in ids] if names else list(ids)


def _next_tokens(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    return _tokens(logits[:, :-1], labels[:, 1:], names)


def _tokens(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Predictions:
    kept = labels != IGNORED  # (B, T)
    nats = torch.stack([_summed_loss(row, target) for row, target in zip(logits, labels, strict=True)])  # (B,)
    return Predictions(nats.double().numpy(), kept.sum(-1).numpy(), logits.argmax(-1)[kept].numpy(), None)


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Row by row, since a float copy of the logits (B, T, V) of a whole batch may not fit."""
    return F.cross_entropy(_wide(logits), labels, ignore_index=IGNORED, reduction="sum")


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.element_size() >= 4 else logits.float()  # half precision loses the tail of the softmax


DECODERS: Mapping[str, Callable[[Tensor, Tensor, Sequence[str]], Predictions]] = {
    "single_label_classification": _classes,
    "image_classification": _classes,
    "audio_classification": _classes,
    "multi_label_classification": _label_sets,
    "regression": _numbers,
    "token_classification": _tags,
    "causal_lm": _next_tokens,
    "masked_lm": _tokens,
    "seq2seq_lm": _tokens,
}
