"""How much worse than its float model an artifact is, on the user's rows and in its own runtime."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.chosen_metric import choose_metric
from hf_shrink.evaluation.compared_rows import LANGUAGE_MODELS, prepare_rows
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.evaluation.quality import Reading, check_comparable, label_names, predict_all
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.datasets import dataset_name, load_rows
from hf_shrink.inputs.models import load_processing_class
from hf_shrink.inputs.rows import default_collator, padding_right
from hf_shrink.quantization.calibration import longest_row, row_lengths, unlabelled_batches
from hf_shrink.quantization.divergence import NO_DECISIONS, Divergence, answers_of, diverge

UNLABELLED = ("agreement", "kl")  # what needs no labels


@dataclass(frozen=True)
class DropMeasure:
    """A measure with its rows, and the float model's answers to them.

    Args:
        metric: "agreement", "kl", or the metric's name.
        dataset: What the record calls the rows.
        rows: How many there are: with 200 of them a share moves in steps of 0.005.
        is_share: Whether it counts rows.
        drop: Holds a model to the float model; above 0 it is worse.
    """

    metric: str
    dataset: str
    rows: int
    is_share: bool
    drop: Callable[[Any], float]


def measure_drop(
    model: PreTrainedModel, source: Any, dataset: Any, metric: Any, task: str, options: RowOptions
) -> DropMeasure:
    """Prepare a measure; the float model answers the rows now, once.

    Args:
        model: The float model.
        source: Where it is from: itself, a folder or a Hub id.
        dataset: A `Dataset`, or a path or Hub id.
        metric: "agreement", the share of decisions that are not the float model's; "kl", how far the answers are from
            its, in nats (the mean squared difference where it decides nothing); or what `compare` takes, which needs
            labels and counts in the metric's own unit, so that a point of accuracy is 0.01.
        task: Name in `TASKS`.
        options: How the rows are read.

    Returns:
        The measure.

    Raises:
        ShrinkError: If the metric does not fit the task, or the rows cannot be read.
    """
    if metric == "agreement" and task in NO_DECISIONS:
        raise ShrinkError(f"`metric` must be another than 'agreement' for {task}, which decides nothing. Choose 'kl'.")
    if metric in UNLABELLED:
        return _without_labels(model, source, dataset, metric, replace(options, task=task))
    return _with_labels(model, source, dataset, metric, replace(options, task=task))


def _without_labels(
    model: PreTrainedModel, source: Any, dataset: Any, metric: str, options: RowOptions
) -> DropMeasure:
    task = str(options.task)
    options = replace(options, max_length=longest_row(model, task, options.max_length))
    read = read_rows(model, source, dataset, options, labelled=False)
    order = np.argsort(-row_lengths(read.rows), kind="stable")
    batches = unlabelled_batches(model, replace(read, rows=read.rows.select(order)))
    kept: list[tuple[Tensor, ...]] = []
    if task not in LANGUAGE_MODELS:  # whose answers to all rows may not fit into memory
        with evaluation_mode([model]):
            kept = [answers_of(model, batch, task) for batch in batches]

    def expected() -> Iterator[tuple[Mapping[str, Tensor], tuple[Tensor, ...]]]:
        for i, batch in enumerate(batches):
            yield batch, kept[i] if kept else answers_of(model, batch, task)

    def drop(other: Any) -> float:
        total = Divergence()
        with evaluation_mode([model, other]):
            for batch, answers in expected():
                total += diverge(answers, answers_of(other, batch, task), batch, task)
        return 1 - total.agreement if metric == "agreement" else total.mean

    return DropMeasure(metric, dataset_name(dataset), len(order), metric == "agreement", drop)


def _with_labels(model: PreTrainedModel, source: Any, dataset: Any, metric: Any, options: RowOptions) -> DropMeasure:
    task = str(options.task)
    check_comparable(task)
    chosen = choose_metric(metric, task, num_labels=len(label_names(model)))
    raw = load_rows(dataset, options.split)
    reader = options.processing_class
    if reader is None and not set(TOKENIZED) & set(raw.column_names):
        reader = load_processing_class(source)
    rows = prepare_rows(
        raw,
        [model],
        [reader],
        task,
        chosen,
        text_column=options.text_column,
        label_column=options.label_column,
        max_length=longest_row(model, task, options.max_length),
    )[0]
    reading = Reading(rows, options.data_collator or default_collator(padding_right(reader), task))
    value = partial(_value, reading, chosen, options.batch_size, task)
    before, sign = value(model), 1 if chosen.higher_is_better else -1
    name = dataset_name(dataset)
    return DropMeasure(chosen.name, name, len(rows), chosen.trials, lambda other: sign * (before - value(other)))


def _value(reading: Reading, metric: Any, batch_size: int, task: str, model: Any) -> float:
    found = predict_all([model], [reading], batch_size, task=task)[0]
    return metric(found.predictions, found.references)
