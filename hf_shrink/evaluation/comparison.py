"""compare(): an original and its smaller descendants, on the same rows and the same machine."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.evaluation.measurement import Measurement, measure_subjects
from hf_shrink.evaluation.predictions import CLASSIFIERS, LANGUAGE_MODELS, Predictions, predict
from hf_shrink.evaluation.provenance import Provenance
from hf_shrink.evaluation.quality import ChosenMetric, Quality, assess, choose_metric, interval_name
from hf_shrink.evaluation.report import Entry, ShrinkReport
from hf_shrink.evaluation.subject import Subject, load_subject
from hf_shrink.inputs import (
    TASKS,
    align_labels,
    check_labels,
    dataset_name,
    default_collator,
    find_columns,
    find_task,
    load_processing_class,
    load_rows,
    tokenize_rows,
)
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.encoding import IGNORED
from hf_shrink.inputs.labels import is_generic
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.inputs.tasks import model_config

Collator = Callable[[list[dict[str, Any]]], Any]


def compare(
    original: Any,
    shrunk: Any,
    dataset: Any,
    *,
    metric: Any = "accuracy",
    task: str | None = None,
    processing_class: Any = None,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Collator | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    sequence_length: int | None = None,
    threads: int | None = None,
    latency_runs: int = 50,
    peak_memory: bool = True,
    names: Sequence[str] | None = None,
    progress: bool = True,
    provenance: Provenance | None = None,
) -> ShrinkReport:
    """Measure quality and cost of smaller models against their original.

    Args:
        original: Model, folder, Hub id or artifact.
        shrunk: The same, or a list of them in the order in which they were made.
        dataset: Labelled rows, raw or tokenised; or a path or Hub id, with `split`.
        metric: Name in `METRICS`; an `evaluate.EvaluationModule`; or a function of predictions and references.
        task: Name of the task, where the original's head does not tell.
        processing_class: Tokenizer or processor of all models; None takes the one saved beside the original.
        split: Split of the dataset.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        data_collator: Makes batches; None takes the one that fits the task.
        batch_size: Rows a batch, for the quality; costs are of one row.
        max_length: Tokens that a row is cut to; None takes the tokenizer's limit.
        sequence_length: Tokens of the row that the costs are of; None takes the median of the rows.
        threads: Threads inside one operator, for the latency; None takes torch's number.
        latency_runs: Timed passes of each model.
        peak_memory: Whether to load each model once more, in a fresh process.
        names: What the report calls the models, the original's first.
        progress: Whether to show a bar.
        provenance: Where the models come from, for the card.

    Returns:
        The report.
    """
    chosen_early = choose_metric(metric, task=task) if task is not None else None
    subjects, task = _load_subjects(original, shrunk, task)
    metric = chosen_early or choose_metric(metric, task=task)
    names = _report_names(subjects, names)
    classes = [_class_order(subjects[0], subject, task) for subject in subjects]
    raw = load_rows(dataset, split)
    rows, collator = _prepare(
        raw, subjects[0], task, processing_class, text_column, label_column, data_collator, max_length
    )
    length = sequence_length or _median_length(rows)

    run = _Run(task, metric, rows, collator, batch_size, progress)
    predictions = run.predict(subjects, classes)
    costs = run.measure(subjects, length, threads, latency_runs, peak_memory)
    return ShrinkReport(
        task=task,
        metric=metric.name,
        dataset=dataset_name(dataset),
        split=split or (str(raw.split) if raw.split is not None else None),
        rows=len(predictions[0]),
        entries=tuple(map(_entry, names, subjects, assess(metric, predictions), costs)),
        higher_is_better=metric.higher_is_better,
        percent=metric.percent,
        interval=interval_name(metric),
        macs_shape=(1, costs[0].latency.sequence_length) if costs[0].latency.sequence_length else None,
        provenance=provenance or _provenance(original, task),
        environment=find_environment(threads or torch.get_num_threads()),
    )


@dataclass(frozen=True)
class _Run:
    """The passes over rows and models, under one progress bar each."""

    task: str
    metric: ChosenMetric
    rows: Dataset
    collator: Collator
    batch_size: int
    progress: bool

    def predict(self, subjects: Sequence[Subject], classes: Sequence[Sequence[int] | None]) -> list[Predictions]:
        """Predictions of every model."""
        batches = -(-len(self.rows) // self.batch_size) if self.batch_size >= 1 else 0
        names = _tag_names(subjects[0]) if self.metric.reads_tags and self.task == "token_classification" else None
        with self._bar("Quality", len(subjects) * batches, "batch") as bar:
            return [
                predict(
                    subject.model,
                    self.rows,
                    self.collator,
                    task=self.task,
                    batch_size=self.batch_size,
                    classes=order,
                    names=names,
                    on_batch=bar.update,
                )
                for subject, order in zip(subjects, classes, strict=True)
            ]

    def measure(
        self, subjects: Sequence[Subject], length: int, threads: int | None, runs: int, peak_memory: bool
    ) -> list[Measurement]:
        """Costs of every model."""
        with self._bar("Cost", len(subjects), "model") as bar:
            return measure_subjects(
                subjects,
                task=self.task,
                sequence_length=length,
                threads=threads,
                runs=runs,
                peak_memory=peak_memory,
                on_model=bar.update,
            )

    def _bar(self, title: str, total: int, unit: str) -> tqdm:
        return tqdm(desc=title, total=total, unit=unit, disable=not self.progress)


# ---------------------------------------------------------------------- models
def _load_subjects(original: Any, shrunk: Any, task: str | None) -> tuple[list[Subject], str]:
    others = list(shrunk) if isinstance(shrunk, (list, tuple)) else [shrunk]
    if not others:
        raise ShrinkError(
            "`shrunk` must name one model at least, got an empty list. Use measure() for a single model."
        )
    first = load_subject(original, task)
    task = find_task(first.model, task)
    return [first, *(load_subject(other, task) for other in others)], task


def _report_names(subjects: Sequence[Subject], names: Sequence[str] | None) -> list[str]:
    if names is None:
        found: list[str] = []
        for subject in subjects:
            same = sum(other.name == subject.name for other in subjects[: len(found)])
            found.append(f"{subject.name} ({same + 1})" if same else subject.name)
        return found
    if isinstance(names, str) or len(names) != len(subjects) or len(set(names)) != len(names):
        raise ShrinkError(
            f"`names` must hold {len(subjects)} different names, the original's first, got {names!r}. "
            "Leave it out to name the models by their folders."
        )
    return list(names)


def _class_order(original: Subject, other: Subject, task: str) -> list[int] | None:
    """For each class of the original, its position in the other model; None where they are the same."""
    if task in LANGUAGE_MODELS:
        return None
    wanted, own = _class_names(original), _class_names(other)
    if len(wanted) != len(own):
        raise ShrinkError(
            f"`shrunk` must have the original's {len(wanted)} outputs, but {other.name} has {len(own)}. "
            "Compare it with the model that it was made from."
        )
    if task == "regression" or wanted == own or is_generic(wanted) or is_generic(own):
        return None
    if missing := sorted(set(wanted) - set(own)):
        raise ShrinkError(
            f"`shrunk` must have the original's classes, but {other.name} lacks {missing[:5]}; it has {own[:5]}. "
            "Set its `config.id2label`, or compare it with the model that it was made from."
        )
    return [own.index(name) for name in wanted]


def _class_names(subject: Subject) -> list[str]:
    return [str(name) for _, name in sorted(_tag_names(subject).items())]


def _tag_names(subject: Subject) -> dict[int, str]:
    return {int(i): str(name) for i, name in (_config(subject).id2label or {}).items()}


def _config(subject: Subject) -> PretrainedConfig:
    config = model_config(subject.model)
    if config is None:
        raise ShrinkError(
            f"`shrunk` must be a model with a transformers config, got {type(subject.model).__name__}. "
            "Give it its `config`, or save it with one."
        )
    return config


def _entry(name: str, subject: Subject, quality: Quality, cost: Measurement) -> Entry:
    costs = {field: getattr(cost, field) for field in cost.__dataclass_fields__}
    return Entry(name=name, method=subject.method, **asdict(quality), **costs)


def _provenance(original: Any, task: str) -> Provenance:
    on_hub = isinstance(original, str) and not looks_like_path(original)
    return Provenance(base_model=original if on_hub else None, pipeline_tag=TASKS[task].pipeline_tag)


# ------------------------------------------------------------------------ rows
def _prepare(
    rows: Dataset,
    original: Subject,
    task: str,
    processing_class: Any,
    text_column: str | Sequence[str] | None,
    label_column: str | None,
    data_collator: Collator | None,
    max_length: int | None,
) -> tuple[Dataset, Collator]:
    if not len(rows):
        raise ShrinkError("`dataset` must have rows, got none. Check the split and your filters.")
    tokenised = bool(set(TOKENIZED) & set(rows.column_names))
    if task not in LANGUAGE_MODELS:
        label_column = find_columns(rows, text_column=text_column, label_column=label_column, needs_label=True).label
        rows = _aligned(rows, label_column, original, task)
    if processing_class is None and not (tokenised and data_collator is not None):
        source = original.source if isinstance(original.source, (str, Path)) else original.model
        processing_class = load_processing_class(source)
    rows = tokenize_rows(
        rows,
        processing_class,
        task=task,
        text_column=text_column,
        label_column=label_column,
        max_length=max_length,
    )
    if task == "causal_lm" and "labels" not in rows.column_names:
        rows = rows.map(lambda ids: {"labels": ids}, input_columns="input_ids")
    return rows, data_collator or default_collator(processing_class, task)


def _aligned(rows: Dataset, label_column: str | None, original: Subject, task: str) -> Dataset:
    config = _config(original)
    if label_column is None:
        raise ShrinkError("`label_column` must be given, got none. Name the column that holds the labels.")
    if task != "regression":
        rows = align_labels(rows, label_column, config)
    check_labels(rows, label_column, config.num_labels)
    if task in CLASSIFIERS:
        labels = rows.with_format("numpy", columns=[label_column])[:][label_column]
        if (labels == IGNORED).all():
            raise ShrinkError(
                f"`label_column` must hold labels, but {label_column!r} holds -100 only. Label some rows."
            )
    return rows


def _median_length(rows: Dataset) -> int:
    if "input_ids" not in rows.column_names:
        return 1  # images have no tokens
    return round(median(len(ids) for ids in rows["input_ids"]))
