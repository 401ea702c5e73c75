"""A model's outputs over a dataset, made into what metrics compare."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import EvalPrediction

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.chosen_metric import choose_metric
from hf_shrink.evaluation.decoding import DECODERS, Predictions, merge
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.rows import row_batches
from hf_shrink.inputs.tasks import find_task, inner_model, model_config


@dataclass(frozen=True)
class Reading:
    """Rows as a model reads them.

    Args:
        rows: Tokenised rows with "labels", as `tokenize_rows` makes them.
        collator: Makes a padded batch of a list of rows.
    """

    rows: Dataset
    collator: Callable[[list[dict[str, Any]]], Any]


def predict(
    model: Any,
    rows: Dataset,
    collator: Callable[[list[dict[str, Any]]], Any],
    batch_size: int = 32,
    *,
    task: str | None = None,
) -> Predictions:
    """Run a model over labelled rows.

    Args:
        model: A transformers model or a `GraphModel`.
        rows: Tokenised rows with "labels", as `tokenize_rows` makes them.
        collator: Makes a padded batch of a list of rows.
        batch_size: Rows a batch.
        task: Name in `TASKS`; found from the model's head where it is None.

    Returns:
        Predictions and references of N rows.
    """
    return predict_all([model], [Reading(rows, collator)], batch_size, task=find_task(model, task))[0]


def predict_all(
    models: Sequence[Any],
    readings: Sequence[Reading],
    batch_size: int = 32,
    *,
    task: str,
    orders: Sequence[Tensor | None] | None = None,
    on_batch: Callable[[], Any] = lambda: None,
) -> list[Predictions]:
    """Run several models over the same rows: where the collator masks at random, all see the same masks.

    Args:
        models: Transformers models or `GraphModel`s.
        readings: The rows, in one order, as each model reads them; models that share a reading share its batches.
        batch_size: Rows a batch.
        task: Name in `TASKS`.
        orders: For each model the place of each of the first one's classes in its logits, shape (C,), or None.
        on_batch: Called after each batch, for a progress bar.

    Returns:
        For each model predictions and references of N rows; an error where a model gives NaN.
    """
    parts: list[list[Predictions]] = [[] for _ in models]
    names = label_names(models[0])
    with evaluation_mode(models), torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.default_generator.manual_seed(0)  # a random mask is the same in every comparison
        for batches in _batches(readings, batch_size):
            for part, model, batch, order in zip(parts, models, batches, orders or [None] * len(models), strict=True):
                logits = _logits(model, batch, task)
                _check_finite(logits, model)
                logits = logits if order is None else logits[..., order]
                part.append(DECODERS[task](logits, torch.as_tensor(batch["labels"]), names))
            on_batch()
    return [merge(part) for part in parts]


def _batches(readings: Sequence[Reading], batch_size: int) -> Iterator[list[Any]]:
    """The same rows for each model, drawn with the same random numbers."""
    made = {id(reading): row_batches(reading.rows, reading.collator, batch_size) for reading in readings}
    for _ in range(0, len(readings[0].rows), batch_size):
        state = torch.get_rng_state()
        batches = {}
        for key, stream in made.items():
            torch.set_rng_state(state)
            batches[key] = next(stream)
        yield [batches[id(reading)] for reading in readings]


def as_compute_metrics(
    metric: Any, task: str, *, id2label: Mapping[int, str] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make a metric into what `transformers.Trainer` takes as `compute_metrics`.

    Args:
        metric: Name in `METRICS`; an `evaluate.EvaluationModule`, all of whose numbers are kept; or a function of an
            `EvalPrediction`, as Trainer takes it, which comes back unchanged.
        task: Name in `TASKS`; it says what the logits mean.
        id2label: The model's label names; without them tags are ids, which "seqeval_f1" cannot read.

    Returns:
        A function of an `EvalPrediction`.

    Raises:
        ShrinkError: If the metric is unknown or does not fit the task, or the names that it reads are missing.
    """
    if callable(metric):
        return metric
    check_comparable(task)
    names = [] if id2label is None else [id2label[i] for i in sorted(id2label)]
    chosen = choose_metric(metric, task, num_labels=len(names) or None)
    if metric == "seqeval_f1" and not names:
        raise ShrinkError("`id2label` must be given for 'seqeval_f1', which reads tags. Give model.config.id2label.")

    def compute_metrics(outputs: EvalPrediction) -> dict[str, float]:
        logits = outputs.predictions[0] if isinstance(outputs.predictions, tuple) else outputs.predictions
        decoded = DECODERS[task](torch.as_tensor(logits), torch.as_tensor(outputs.label_ids), names)
        if isinstance(metric, str):
            return {chosen.name: chosen(decoded.predictions, decoded.references)}
        return metric.compute(predictions=decoded.predictions, references=decoded.references)

    return compute_metrics


def check_comparable(task: str) -> None:
    """Refuse a task whose outputs are not made into predictions.

    Args:
        task: Name in `TASKS`.

    Raises:
        ShrinkError: If there is no decoder for it.
    """
    if task not in DECODERS:
        raise ShrinkError(f"`task` must be one of {sorted(DECODERS)} to be scored, got {task!r}. Choose one of these.")


def label_names(model: Any) -> list[str]:
    """A model's label names in the order of its logits.

    Args:
        model: A transformers model or a `GraphModel`.

    Returns:
        C names; none where the config has none.
    """
    config = model_config(model)
    names = {} if config is None else {int(i): str(name) for i, name in dict(config.id2label or {}).items()}
    return [names[i] for i in sorted(names)]


def _check_finite(logits: Tensor, model: Any) -> None:
    if logits.isnan().any():
        raise ShrinkError(
            f"`model` must give numbers, but {type(model).__name__} gave NaN, whose largest is class 0 and would pass "
            "for an answer. Look for an overflow in half precision, or a quantization that went wrong."
        )


def _logits(model: Any, batch: Mapping[str, Any], task: str) -> Tensor:
    # An encoder-decoder makes its decoder's inputs of the labels; all others would only compute a loss of no use.
    feed = {name: value for name, value in batch.items() if name != "labels" or task == "seq2seq_lm"}
    if isinstance(model, nn.Module):
        known = inspect.signature(inner_model(model).forward).parameters  # another family may know no token types
        device = next(model.parameters()).device
        feed = {name: value.to(device) for name, value in feed.items() if name in known}
    return model(**feed).logits.cpu()
