"""Rows that a model is calibrated on: found, tokenised, batched, shared by processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import TOKENIZED, find_columns
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import load_rows
from hf_shrink.inputs.labels import align_labels, check_labels
from hf_shrink.inputs.models import load_processing_class
from hf_shrink.inputs.positions import max_positions
from hf_shrink.inputs.rows import CLASSIFIERS, default_collator, padding_right, row_batches, tokenize_rows
from hf_shrink.inputs.tasks import find_task, inner_model, model_config

Batch = Mapping[str, Any]
WITHOUT_LABEL = "feature_extraction"  # the task whose rows are prepared without one


@dataclass(frozen=True)
class RowOptions:
    """How rows are read; the arguments of every function that reads a dataset.

    Args:
        split: Of the dataset, where it has several.
        task: Name in `TASKS`; found from the model if None.
        processing_class: What prepares raw rows; loaded from where the model was if None and needed.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None and needed.
        data_collator: Makes a padded batch; None takes the one of the task.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        seed: Of the choice of rows, and of a collator that masks at random.
    """

    split: str | None = None
    task: str | None = None
    processing_class: Any = None
    text_column: str | Sequence[str] | None = None
    label_column: str | None = None
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None
    batch_size: int = 32
    max_length: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class CalibrationRows:
    """Rows that a model can read, in batches.

    Args:
        rows: Tokenised rows.
        collator: Makes a padded batch of a list of rows.
        batch_size: Rows a batch.
        task: Name in `TASKS`.
        seed: Of a collator that masks at random; every pass sees the same masks.
    """

    rows: Dataset
    collator: Callable[[list[dict[str, Any]]], Any]
    batch_size: int
    task: str
    seed: int = 0

    def batches(self, title: str | None = None) -> Iterator[Batch]:
        """Go through this process's share of the rows; the caller's random generator is left alone.

        Args:
            title: Of the progress bar; None shows none.

        Yields:
            What the collator makes.
        """
        rank, world = shared_by()
        rows = self.rows if world == 1 else self.rows.select(range(rank, len(self.rows), world))
        made = row_batches(rows, self.collator, self.batch_size)
        hidden = title is None or rank > 0
        state = torch.Generator().manual_seed(self.seed).get_state()
        with tqdm(total=len(rows), desc=title, unit=" rows", leave=False, disable=hidden) as bar:
            while True:
                with torch.random.fork_rng(devices=[]):
                    torch.set_rng_state(state)
                    batch = next(made, None)
                    state = torch.get_rng_state()
                if batch is None:
                    return
                yield batch
                bar.update(min(self.batch_size, len(rows) - bar.n))


def read_rows(
    model: nn.Module, source: Any, dataset: Any, options: RowOptions, *, labelled: bool, size: int | None = None
) -> CalibrationRows:
    """Make a dataset into what a model reads; the model does not run.

    Args:
        model: Who reads.
        source: Where it is from: itself, a folder or a Hub id.
        dataset: A `Dataset`, or a path or Hub id.
        options: How.
        labelled: Whether the model's loss is asked for.
        size: Rows to draw; None takes all, in their order.

    Returns:
        The rows.

    Raises:
        ShrinkError: If there are no rows, or no labels where they are needed, or the model cannot read them.
    """
    check_counts(batch_size=options.batch_size, max_length=options.max_length, calibration_size=size)
    task, raw = find_task(model, options.task), load_rows(dataset, options.split)
    if not len(raw):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    if size is not None:
        raw = raw.shuffle(seed=options.seed).select(range(min(size, len(raw))))
    processing_class = options.processing_class
    pads = options.data_collator is None and task not in ("image_classification", "audio_classification")
    if processing_class is None and (pads or not set(TOKENIZED) & set(raw.column_names)):
        processing_class = load_processing_class(source)
    label = options.label_column
    if labelled:
        raw, label = _with_labels(raw, model, task, options)
    elif task not in ("seq2seq_lm", "audio_classification"):  # a decoder reads its labels; raw sound is told by name
        label = None
    rows = tokenize_rows(
        raw,
        processing_class,
        task=task if labelled or task in ("seq2seq_lm", "audio_classification") else WITHOUT_LABEL,
        text_column=options.text_column,
        label_column=label,
        max_length=_longest(model, processing_class) if options.max_length is None else options.max_length,
    )
    if labelled and task == "causal_lm" and "labels" not in rows.column_names:
        rows = rows.map(lambda batch: {"labels": batch["input_ids"]}, batched=True, desc="Labelling")
    collator = options.data_collator or default_collator(padding_right(processing_class), task)
    return CalibrationRows(rows, collator, options.batch_size, task, options.seed)


def shared_by() -> tuple[int, int]:
    """The processes that share the rows.

    Returns:
        Rank of this one, and how many there are.
    """
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _with_labels(raw: Dataset, model: nn.Module, task: str, options: RowOptions) -> tuple[Dataset, str | None]:
    """Check that the rows have the labels that the loss is computed with, numbered as the model does."""
    if task == WITHOUT_LABEL:
        raise ShrinkError(
            f"`model` must have a head with a loss, got a {type(inner_model(model)).__name__}. Load it with its head, "
            "or choose a method that reads no labels."
        )
    if task in ("causal_lm", "masked_lm") or {"start_positions", "end_positions"} <= set(raw.column_names):
        return raw, options.label_column
    columns = find_columns(raw, text_column=options.text_column, label_column=options.label_column, needs_label=True)
    config, label = model_config(model), columns.label
    if task in (*CLASSIFIERS, "regression") and config is not None and label is not None:
        raw = align_labels(raw, label, config)
        check_labels(raw, label, int(config.num_labels or 0))
    return raw, label


def _longest(model: nn.Module, processing_class: Any) -> int | None:
    config = model_config(model)
    positions = None if config is None else max_positions(config)
    limits = [] if positions is None else [positions]
    if isinstance(processing_class, PreTrainedTokenizerBase):
        limits.append(processing_class.model_max_length)
    return min(limits, default=None)
