"""What a model says of labelled rows, read from its logits task by task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.forward import evaluating, run_forward
from hf_shrink.inputs import row_batches
from hf_shrink.inputs.encoding import IGNORED

CLASSIFIERS = ("single_label_classification", "image_classification", "audio_classification")
LANGUAGE_MODELS = ("causal_lm", "masked_lm")
READABLE = (*CLASSIFIERS, "multi_label_classification", "regression", "token_classification", *LANGUAGE_MODELS)


@dataclass(frozen=True)
class Predictions:
    """Predictions and references of N rows, in the form that the metrics of the task take.

    Args:
        predictions: Class ids (N,); label sets (N, C) of 0 and 1; numbers (N,) or (N, C); a list of tags for each row;
            or the summed loss of each row's predicted tokens, in nats, (N,).
        references: The right ones, of the same form; for language models the number of predicted tokens, (N,).
        choices: What was chosen: ids (M,) of all rows or all their tokens, or label sets (N, C); None where nothing is
            chosen (regression).
    """

    predictions: Any
    references: Any
    choices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.references)

    def take(self, index: np.ndarray) -> "Predictions":
        """Some of the rows.

        Args:
            index: Their positions, (M,); one may occur more than once.

        Returns:
            M rows, without choices.
        """
        if isinstance(self.references, np.ndarray):
            return Predictions(self.predictions[index], self.references[index], None)
        return Predictions([self.predictions[i] for i in index], [self.references[i] for i in index], None)

    def right(self) -> np.ndarray:
        """Which rows are right as a whole.

        Returns:
            Booleans (N,).
        """
        return (self.predictions == self.references).reshape(len(self), -1).all(axis=1)


def predict(
    model: Any,
    rows: Dataset,
    collator: Callable[[list[dict[str, Any]]], Any],
    *,
    task: str,
    batch_size: int = 32,
    classes: Sequence[int] | None = None,
    names: Mapping[int, str] | None = None,
    on_batch: Callable[[], Any] = lambda: None,
) -> Predictions:
    """Run a model over labelled rows.

    Args:
        model: A module or an `OnnxModel`; it keeps its mode.
        rows: Tokenised rows with "labels".
        collator: Makes a padded batch of rows.
        task: Name of the task.
        batch_size: Rows a batch.
        classes: Where the model numbers its classes otherwise than the labels: for each label the model's own id.
        names: Tag of each id; for token classification, where tags rather than ids are wanted.
        on_batch: Called after each batch, such as a progress bar's step.

    Returns:
        Predictions in the rows' order; rows whose label is -100 are left out.

    Raises:
        ShrinkError: If the model gives NaN: the largest of NaNs is class 0, and would pass for an answer.
    """
    parts = []
    with evaluating(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # masked language models: every model must see the same tokens masked
        for batch in row_batches(rows, collator, batch_size):
            logits = run_forward(model, batch).logits.float().cpu()
            if logits.isnan().any():
                raise ShrinkError(
                    f"`model` must give numbers, but {type(model).__name__} gave NaN. Look for an overflow in half "
                    "precision, or a quantization that went wrong."
                )
            logits = logits if classes is None else logits[..., list(classes)]
            parts.append(read_logits(logits, batch["labels"].cpu(), task, names))
            on_batch()
    return _join(parts)


def read_logits(logits: Tensor, labels: Tensor, task: str, names: Mapping[int, str] | None = None) -> Predictions:
    """Read predictions from logits.

    Args:
        logits: Shape (B, C), or (B, T, C) for tokens.
        labels: Shape (B,), (B, C) or (B, T); -100 leaves a row or token out.
        task: Name of the task.
        names: Tag of each id, for token classification.

    Returns:
        Predictions of at most B rows; an error for tasks that `check_readable` refuses.
    """
    check_readable(task)
    if task in LANGUAGE_MODELS:
        return _read_tokens(logits, labels, shift=task == "causal_lm")
    if task == "token_classification":
        return _read_tags(logits, labels, names)
    if task == "regression":
        return Predictions(logits.reshape(labels.shape).numpy(), labels.float().numpy(), None)
    if task == "multi_label_classification":
        sets = (logits > 0).long().numpy()  # a probability of one half
        return Predictions(sets, (labels > 0.5).long().numpy(), sets)
    kept = labels != IGNORED
    ids = logits.argmax(-1)[kept].numpy()
    return Predictions(ids, labels[kept].numpy(), ids)


def check_readable(task: str) -> None:
    """Refuse a task whose predictions are not read from logits.

    Args:
        task: Name of the task.

    Raises:
        ShrinkError: If it is such a task.
    """
    if task not in READABLE:
        raise ShrinkError(
            f"`task` must be one of {sorted(READABLE)} to be scored, got {task!r}. Score it with transformers' own "
            "Trainer.evaluate(); measure() takes models of every task."
        )


def agreement(first: Predictions, second: Predictions) -> float | None:
    """How often two models choose alike.

    Args:
        first: Predictions of one model.
        second: Predictions of the other, on the same rows.

    Returns:
        Share in [0, 1] of equal choices (a label set counts once); None where nothing is chosen.
    """
    if first.choices is None or second.choices is None or not len(first.choices):
        return None
    equal = first.choices == second.choices
    return float(equal.reshape(len(equal), -1).all(axis=1).mean())


def _read_tags(logits: Tensor, labels: Tensor, names: Mapping[int, str] | None) -> Predictions:
    ids = logits.argmax(-1)
    kept = labels != IGNORED
    found = [ids[i][kept[i]] for i in range(len(labels))]
    wanted = [labels[i][kept[i]] for i in range(len(labels))]

    def tags(row: Tensor) -> list[Any]:
        return row.tolist() if names is None else [names[i] for i in row.tolist()]

    return Predictions([tags(row) for row in found], [tags(row) for row in wanted], ids[kept].numpy())


def _read_tokens(logits: Tensor, labels: Tensor, *, shift: bool) -> Predictions:
    if shift:  # position t of a causal model predicts token t + 1
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses, counts, choices = [], [], []
    for row, wanted in zip(logits, labels, strict=True):  # row by row: a batch of (B, T, V) in fp32 may not fit twice
        kept = wanted != IGNORED
        losses.append(cross_entropy(row[kept].float(), wanted[kept], reduction="sum").item())
        counts.append(int(kept.sum()))
        choices.append(row[kept].argmax(-1).numpy())
    return Predictions(np.array(losses), np.array(counts), np.concatenate(choices))


def _join(parts: list[Predictions]) -> Predictions:
    return Predictions(
        _chain([part.predictions for part in parts]),
        _chain([part.references for part in parts]),
        None if parts[0].choices is None else np.concatenate([part.choices for part in parts]),
    )


def _chain(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [row for part in parts for row in part]
