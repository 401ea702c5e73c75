"""Rows that a method finds its ranges on: every class with its share, short rows and long ones, never a label."""

import hashlib
import inspect
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.compared_rows import LANGUAGE_MODELS, count_tokens
from hf_shrink.inputs.calibration_rows import CalibrationRows, RowOptions, read_rows
from hf_shrink.inputs.columns import find_columns, inner_feature
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import dataset_name, load_rows
from hf_shrink.inputs.encoding import IGNORED
from hf_shrink.inputs.positions import max_positions
from hf_shrink.inputs.rows import CLASSIFIERS, TARGETS, UNLABELLED
from hf_shrink.inputs.tasks import find_task, inner_model, model_config
from hf_shrink.registry import Method

Batch = Mapping[str, Tensor]
CLASSES = (*CLASSIFIERS, "audio_classification")
POOL = 16  # rows tokenised for each row that is taken: enough to choose lengths from, however large the dataset is
LONGEST = 512  # tokens of a language model's row, whose positions may be many thousands


@dataclass(frozen=True)
class CalibrationSet:
    """Rows to calibrate with.

    Args:
        batches: Padded, on the CPU, without labels; rows of a batch are of similar length, and batches in no order.
        record: What `quantization.json` says of them, as JSON values.
    """

    batches: tuple[Batch, ...]
    record: Mapping[str, Any]


def require_calibration(method: Method, dataset: Any, others: Sequence[str]) -> None:
    """Refuse a method that reads rows where there are none.

    Args:
        method: What was asked for.
        dataset: What was given for it.
        others: Names of methods that can be run without rows, for the message.

    Raises:
        ShrinkError: If the method is calibrated, and no dataset was given.
    """
    if dataset is None and needs_rows(method):
        raise ShrinkError(
            f"`calibration_dataset` must be given for {method.name}, which finds the ranges of the activations on "
            f"rows, got None. Give some hundred rows like those that the model is for, or choose one of {others}."
        )


def needs_rows(method: Method) -> bool:
    """Whether a method cannot do without rows.

    Args:
        method: Any.

    Returns:
        False also for one that only becomes better with some.
    """
    return bool(method.facts.get("calibrated")) and not method.facts.get("rows_optional", False)


def calibration_batches(
    model: nn.Module, source: Any, dataset: Any, options: RowOptions, *, size: int = 256
) -> CalibrationSet:
    """Draw rows and make them into batches; the model does not run.

    Where there is a label, every class keeps its share, and none is lost while there are rows enough to take; within a
    class the rows are spread over the quantiles of length. Batches hold rows of similar length, since ranges are
    found over padding as well.

    Args:
        model: Who reads.
        source: Where it is from: itself, a folder or a Hub id.
        dataset: A `Dataset`, or a path or Hub id; raw or tokenised.
        options: How it is read; the label only says which rows are drawn.
        size: Rows to draw; of fewer rows all are taken, with a warning.

    Returns:
        The batches.

    Raises:
        ShrinkError: If there are no rows, or the model cannot read them.
    """
    check_counts(batch_size=options.batch_size, max_length=options.max_length, calibration_size=size)
    task, raw = find_task(model, options.task), load_rows(dataset, options.split)
    if not len(raw):
        raise ShrinkError(
            "`calibration_dataset` must hold at least 1 row, got 0. Check the split and the filters before it."
        )
    if len(raw) < size:
        warnings.warn(
            f"Calibration takes all {len(raw)} rows that there are, where {size} were to be drawn.", stacklevel=2
        )
    label = _find_label(raw, task, options)
    strata = np.zeros(len(raw), np.int64) if label is None else _strata(raw, label, task)
    random = np.random.default_rng(options.seed)
    pool = _draw(strata, min(POOL * size, len(raw)), random)
    reading = replace(options, split=None, task=task, max_length=longest_row(model, task, options.max_length))
    rows = raw.select(pool) if label is None else raw.select(pool).remove_columns(label)
    read = read_rows(model, source, rows, reading, labelled=False)
    lengths = row_lengths(read.rows)
    taken = choose_rows(strata[pool], lengths, min(size, len(raw)), random)
    taken = taken[np.argsort(-lengths[taken], kind="stable")]
    made = unlabelled_batches(model, replace(read, rows=read.rows.select(taken)))
    batches = tuple(made[i] for i in random.permutation(len(made)))  # who reads the first ones only sees all lengths
    record = {
        "dataset": dataset_name(dataset),
        "rows": len(taken),
        "seed": options.seed,
        "classes_by": label,
        "tokens": _length_facts(lengths[taken]),
        "fingerprint": _fingerprint(batches),
    }
    return CalibrationSet(batches, record)


def unlabelled_batches(model: nn.Module, read: CalibrationRows) -> list[Batch]:
    """All rows, in their order, as a model reads them; labels stay out.

    Args:
        model: Who reads.
        read: The rows.

    Returns:
        Padded batches on the CPU, with what the model takes.
    """
    known = inspect.signature(inner_model(model).forward).parameters
    rows = _without_labels(read.rows, read.task)
    return [_inputs(batch, known) for batch in replace(read, rows=rows).batches()]


def choose_rows(
    strata: NDArray[np.int64], lengths: NDArray[np.int64], size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Choose rows that keep the shares of the classes, and cover the lengths within each.

    Args:
        strata: Class of each row, shape (N,).
        lengths: Tokens of each row, shape (N,).
        size: Rows to choose, in [1, N].
        random: Where the choice comes from.

    Returns:
        Places of the rows in ascending order, shape (size,). A class of n chosen rows is sorted by length and cut into
        n equal parts, and each part gives one.
    """
    classes, counts = np.unique(strata, return_counts=True)
    chosen = []
    for own, count in zip(classes, class_quotas(counts, size), strict=True):
        members = np.flatnonzero(strata == own)
        members = members[np.argsort(lengths[members], kind="stable")]
        edges = np.arange(count + 1) * len(members) // max(count, 1)
        chosen.append(members[random.integers(edges[:-1], edges[1:])])
    return np.sort(np.concatenate(chosen))


def class_quotas(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many rows each class gives.

    Args:
        counts: Rows of each class, all above 0, shape (C,).
        size: Rows to choose, in [1, sum of counts].

    Returns:
        Shape (C,), which add up to the size: their shares but for rounding, and at least 1 where the size allows.
    """
    exact = counts * (size / counts.sum())
    quotas = np.clip(np.floor(exact).astype(np.int64), 1, counts)
    while quotas.sum() > size:  # the ones that were given to small classes are taken from large ones
        spare = quotas > 1 if (quotas > 1).any() else quotas > 0
        quotas[np.argmax(np.where(spare, quotas - exact, -np.inf))] -= 1
    while quotas.sum() < size:
        quotas[np.argmax(np.where(quotas < counts, exact - quotas, -np.inf))] += 1
    return quotas


def longest_row(model: nn.Module, task: str, max_length: int | None) -> int | None:
    """Tokens to cut a row to.

    Args:
        model: Who reads.
        task: Name in `TASKS`.
        max_length: What was asked for.

    Returns:
        The same; 512 for a language model's rows where nothing was asked for; None leaves it to the tokenizer.
    """
    if max_length is not None or task not in LANGUAGE_MODELS:
        return max_length
    config = model_config(model)
    positions = None if config is None else max_positions(config)
    return LONGEST if positions is None else min(LONGEST, positions)


def row_lengths(rows: Dataset) -> NDArray[np.int64]:
    """Tokens of each row.

    Args:
        rows: Tokenised rows, or pictures.

    Returns:
        Shape (N,); zeros for pictures.
    """
    return count_tokens(rows) if "input_ids" in rows.column_names else np.zeros(len(rows), np.int64)


def _draw(strata: NDArray[np.int64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    return choose_rows(strata, np.zeros(len(strata), np.int64), size, random)


def _find_label(raw: Dataset, task: str, options: RowOptions) -> str | None:
    named = options.label_column is not None and task in UNLABELLED  # such as the source of a language model's rows
    if task not in CLASSES and not named:
        return None
    return find_columns(raw, text_column=options.text_column, label_column=options.label_column).label


def _strata(raw: Dataset, label: str, task: str) -> NDArray[np.int64]:
    """Class of each row; of several labels the one that is rarest in the dataset."""
    values = raw.select_columns(label).with_format(None)[:][label]
    if values and isinstance(values[0], list):
        ids = isinstance(inner_feature(raw.features[label]), ClassLabel)
        multi_hot = task == "multi_label_classification" and not ids
        values = _rarest([_present(row) if multi_hot else _labels(row) for row in values])
    numbers = {value: i for i, value in enumerate(sorted(set(values), key=str))}
    return np.array([numbers[value] for value in values])


def _present(row: Sequence[float]) -> list[int]:
    return [i for i, share in enumerate(row) if share > 0.5]


def _labels(row: Sequence[Any]) -> list[Any]:
    return [value for value in row if value != IGNORED]


def _rarest(rows: Sequence[Sequence[Any]]) -> list[Any]:
    counts = Counter(chain.from_iterable(rows))
    return [min(row, key=lambda value: (counts[value], str(value)), default=None) for row in rows]


def _without_labels(rows: Dataset, task: str) -> Dataset:
    if task == "seq2seq_lm":
        return rows  # the decoder's inputs are made of them
    return rows.select_columns([column for column in rows.column_names if column not in TARGETS])


def _inputs(batch: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Tensor]:
    feed = {name: values for name, values in batch.items() if name in known and name != "labels"}
    return {name: values.cpu() for name, values in feed.items() if isinstance(values, torch.Tensor)}


def _length_facts(lengths: NDArray[np.int64]) -> dict[str, int] | None:
    if not lengths.any():
        return None  # pictures
    return {"min": int(lengths.min()), "median": int(np.median(lengths)), "max": int(lengths.max())}


def _fingerprint(batches: Sequence[Batch]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        for name, values in sorted(batch.items()):
            digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
            digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
