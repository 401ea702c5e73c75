"""The rows of a comparison: labels as the original numbers them, tokens that every model can read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.chosen_metric import ChosenMetric
from hf_shrink.evaluation.decoding import references
from hf_shrink.evaluation.quality import label_names
from hf_shrink.inputs.columns import TOKENIZED, find_columns
from hf_shrink.inputs.labels import align_labels, check_labels, is_generic
from hf_shrink.inputs.positions import max_positions
from hf_shrink.inputs.rows import tokenize_rows
from hf_shrink.inputs.tasks import model_config

LANGUAGE_MODELS = ("causal_lm", "masked_lm", "seq2seq_lm")
UNLABELLED = ("causal_lm", "masked_lm")  # the text is the label
WITHOUT_TEXT = 128  # tokens that a pass is measured with where the rows have none; such models ignore it


def prepare_rows(
    raw: Dataset,
    models: Sequence[Any],
    processing_classes: Sequence[Any],
    task: str,
    metric: ChosenMetric,
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
) -> list[Dataset]:
    """Make rows into inputs that fit every model, and try the metric on their labels; no model runs.

    Args:
        raw: Raw or tokenised rows.
        models: The original first.
        processing_classes: Tokenizer or processor of each model; may be None for tokenised rows.
        task: Name in `TASKS`.
        metric: The metric that the rows are for.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        max_length: Tokens to cut a row to; None takes the tokenizer's and the models' limit.

    Returns:
        For each model tokenised rows with "labels", in one order for all: those first that are longest for the first
        model. Models with one processing class share theirs. For masked language models the collator makes the labels.

    Raises:
        ShrinkError: If there are no rows or no labels, or the models cannot read them, or the metric cannot.
    """
    if not len(raw):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    label = None
    if task not in UNLABELLED:
        label = find_columns(raw, text_column=text_column, label_column=label_column, needs_label=True).label
    if task not in LANGUAGE_MODELS and label is not None:
        raw = _checked_labels(raw, label, models[0])
    readers = {id(reader): reader for reader in processing_classes}
    if len(readers) > 1 and set(TOKENIZED) & set(raw.column_names):
        raise ShrinkError(
            f"`processing_class` must be one for all models where the rows are tokenised already, got {len(readers)}. "
            "Give the rows as they were before, so that each model reads them with its own."
        )
    made = {}
    for key, reader in readers.items():
        own = [model for model, its in zip(models, processing_classes, strict=True) if id(its) == key]
        limit = _longest_readable(models, reader) if max_length is None else max_length
        columns: dict[str, Any] = {"text_column": text_column, "label_column": label, "max_length": limit}
        made[key] = _tokenized(raw, own, reader, task, columns)
    rows = [made[id(reader)] for reader in processing_classes]
    if task not in LANGUAGE_MODELS:
        _try_metric(metric, rows[0], task, label_names(models[0]))
    return _by_length(rows)


def count_tokens(rows: Dataset, column: str = "input_ids") -> NDArray[np.int64]:
    """How many tokens each row has.

    Args:
        rows: Tokenised rows.
        column: Which of their lists is counted.

    Returns:
        Shape (N,).
    """
    return pc.list_value_length(_lists(rows, column)).to_numpy(zero_copy_only=False).astype(np.int64)


def class_order(original: Any, model: Any, task: str) -> Tensor | None:
    """Where each of the original's classes stands in another model's logits.

    Args:
        original: The model whose order is kept.
        model: The other.
        task: Name in `TASKS`.

    Returns:
        Shape (C,), for `logits[..., order]`; None where the order is the same, or where nobody chose the names.

    Raises:
        ShrinkError: If the classes differ: agreement of unrelated classes means nothing.
    """
    if task in LANGUAGE_MODELS:
        return None
    names, others = label_names(original), label_names(model)
    if names == others or (len(names) == len(others) and (is_generic(names) or is_generic(others))):
        return None
    if sorted(names) != sorted(others):
        different = sorted(set(names) ^ set(others))
        raise ShrinkError(
            f"`shrunk` must have the original's {len(names)} labels, got {len(others)}, and these stand in one alone: "
            f"{different[:5]}{' …' if len(different) > 5 else ''}. Choose a model of this task, or mend `id2label`."
        )
    return torch.tensor([others.index(name) for name in names])


def median_length(rows: Dataset) -> int:
    """Median number of tokens a row.

    Args:
        rows: Tokenised rows.

    Returns:
        Tokens, rounded to a whole number.
    """
    if "input_ids" not in rows.column_names:
        return WITHOUT_TEXT
    return round(float(np.median(count_tokens(rows))))


def vocabulary_size(model: Any) -> int | None:
    """How many token ids a model reads.

    Args:
        model: A transformers model or a `GraphModel`.

    Returns:
        Ids; None for models that read no text.
    """
    config = model_config(model)
    return None if config is None else vars(config.get_text_config()).get("vocab_size")


def _tokenized(
    raw: Dataset, models: Sequence[Any], processing_class: Any, task: str, columns: Mapping[str, Any]
) -> Dataset:
    rows = tokenize_rows(raw, processing_class, task=task, **columns)
    if task == "causal_lm" and "labels" not in rows.column_names:
        rows = rows.map(lambda batch: {"labels": batch["input_ids"]}, batched=True, desc="Labelling")
    if "input_ids" in rows.column_names:
        _check_readable(rows, models)
    return rows


def _checked_labels(raw: Dataset, label: str, original: Any) -> Dataset:
    config = model_config(original)
    if config is None:
        raise ShrinkError(
            f"`original` must be a transformers model, got {type(original).__name__} without a config. Wrap it in one."
        )
    raw = align_labels(raw, label, config)
    check_labels(raw, label, int(config.num_labels or 0))
    return raw


def _by_length(rows: Sequence[Dataset]) -> list[Dataset]:
    """The longest first: batches hold little padding, and what does not fit into memory fails at once."""
    if "input_ids" not in rows[0].column_names:
        return list(rows)
    order = np.argsort(-count_tokens(rows[0]), kind="stable")
    sorted_rows = {id(each): each.select(order) for each in rows}
    return [sorted_rows[id(each)] for each in rows]


def _try_metric(metric: ChosenMetric, rows: Dataset, task: str, names: Sequence[str]) -> None:
    wanted = references(task, rows.select_columns("labels")[:]["labels"], names)
    if not len(wanted):
        raise ShrinkError("`dataset` must hold at least 1 labelled row, got only -100. Choose a labelled split.")
    metric.check(wanted)


def _longest_readable(models: Sequence[Any], processing_class: Any) -> int | None:
    limits = _limits(models)
    if isinstance(processing_class, PreTrainedTokenizerBase):
        limits.append(processing_class.model_max_length)
    return min(limits, default=None)


def _check_readable(rows: Dataset, models: Sequence[Any]) -> None:
    ids = _lists(rows, "input_ids")
    lengths = pc.list_value_length(ids)
    longest, shortest, highest = pc.max(lengths).as_py(), pc.min(lengths).as_py(), pc.max(ids.flatten()).as_py()
    if not shortest:
        raise ShrinkError("`dataset` must hold at least 1 token in every row, but some rows are empty. Drop them.")
    limit = min(_limits(models), default=longest)
    if longest > limit:
        raise ShrinkError(
            f"`max_length` must be at most {limit} (the positions that all models have), but rows have up to "
            f"{longest} tokens. Set max_length={limit}, or tokenize anew."
        )
    sizes = [size for model in models if (size := vocabulary_size(model)) is not None]
    vocabulary = min(sizes, default=highest + 1)
    if highest >= vocabulary:
        raise ShrinkError(
            f"`processing_class` must be the models' own, but it makes token id {highest}, and a model's vocabulary "
            f"has {vocabulary}. Give the original's tokenizer, or a list with one for each model."
        )


def _limits(models: Sequence[Any]) -> list[int]:
    return [limit for config in _configs(models) if (limit := max_positions(config)) is not None]


def _configs(models: Sequence[Any]) -> list[PretrainedConfig]:
    return [config for model in models if (config := model_config(model)) is not None]


def _lists(rows: Dataset, column: str) -> pa.Array:
    return rows.select_columns(column).with_format("arrow")[:][column].combine_chunks()
