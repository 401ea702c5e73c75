"""Rows scored by training a model on them."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Value
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from hf_shrink.dataset_distillation.dynamics import last_seen
from hf_shrink.dataset_distillation.dynamics_callback import TrainingDynamicsCallback, check_scored_task
from hf_shrink.dataset_distillation.learner import load_learner
from hf_shrink.dataset_distillation.numbered_rows import with_column
from hf_shrink.dataset_distillation.scores import COLUMN
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import load_rows
from hf_shrink.inputs.rows import CLASSIFIERS
from hf_shrink.inputs.tasks import find_task

logger = logging.get_logger(__name__)


def score_dataset(
    dataset: Any,
    scores: Sequence[str],
    model: nn.Module | str | Path,
    *,
    split: str | None = None,
    task: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    num_train_epochs: int = 5,
    learning_rate: float = 1e-4,
    seed: int = 0,
    args: TrainingArguments | None = None,
    resume_from_checkpoint: str | Path | None = None,
) -> Dataset:
    """Train a model on rows, and note how it learns each of them.

    Rows with several labels or tokens have the mean over them. Causal language models need no labels: the text is the
    label.

    Args:
        dataset: A `Dataset`, or a path or Hub id.
        scores: Names in `SCORES`.
        model: A folder or Hub id; without a head it gets one for the rows' labels. Of an instance a copy is trained.
        split: Of the dataset, where it has several.
        task: Name in `TASKS`; found from the model, or from the labels where it has no head.
        processing_class: What prepares raw rows; loaded from where the model was if None.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        data_collator: Makes a padded batch; None takes the one of the task.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        num_train_epochs: How often each row is seen; scores of less than 3 epochs say little.
        learning_rate: At the start; it falls along a line. A model that hardly learns gives scores that say nothing:
            that is warned of where fewer than half of the rows are answered rightly in the end.
        seed: Of a new head, the order of the rows, and dropout.
        args: How to train, in place of the five settings before; the output folder is then kept.
        resume_from_checkpoint: Folder of a checkpoint of such a run that broke off.

    Returns:
        The rows with all their columns, in their order, and a float32 column "score_<name>" for each score; NaN for a
        row without labels.
    """
    check_counts(batch_size=batch_size, num_train_epochs=num_train_epochs, max_length=max_length)
    callback = TrainingDynamicsCallback(scores, task=task, checkpoint=resume_from_checkpoint)
    raw = load_rows(dataset, split)
    _check_rows(raw, callback.names)
    set_seed(seed if args is None else args.seed)  # of a head that starts at random
    learner = load_learner(model, raw, task=task, text_column=text_column, label_column=label_column)
    check_scored_task(find_task(learner, task))
    options = RowOptions(
        task=task,
        processing_class=processing_class,
        text_column=text_column,
        label_column=label_column,
        data_collator=data_collator,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
    )
    read = read_rows(learner, model, raw, options, labelled=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = _arguments(folder, batch_size, num_train_epochs, learning_rate, seed) if args is None else args
        trainer = Trainer(
            model=learner,
            args=_with_all_columns(chosen),
            train_dataset=callback.number(read.rows),
            data_collator=read.collator,
            callbacks=[callback],
        )
        trainer.train(resume_from_checkpoint=None if resume_from_checkpoint is None else str(resume_from_checkpoint))
    _warn_if_unlearned(callback, read.task)
    for name, values in callback.scores().items():
        raw = with_column(raw, f"{COLUMN}{name}", values, Value("float32"))
    return raw


def _check_rows(rows: Dataset, scores: Sequence[str]) -> None:
    if not len(rows):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    if taken := [f"{COLUMN}{name}" for name in scores if f"{COLUMN}{name}" in rows.column_names]:
        raise ShrinkError(f"`dataset` must not hold {taken} already. Drop them with remove_columns({taken}).")


def _warn_if_unlearned(callback: TrainingDynamicsCallback, task: str) -> None:
    right = last_seen(callback.dynamics["correct"])
    share = np.nanmean(right) if np.isfinite(right).any() else 0.0
    if task in CLASSIFIERS and not share >= 0.5:
        logger.warning(
            f"In the last epoch {share:.0%} of the rows were answered rightly. Scores of a model that has not learned "
            "say little: train for more epochs, or with a larger `learning_rate`."
        )


def _arguments(
    folder: str, batch_size: int, num_train_epochs: int, learning_rate: float, seed: int
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        num_train_epochs=num_train_epochs,
        learning_rate=learning_rate,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
    )


def _with_all_columns(args: TrainingArguments) -> TrainingArguments:
    """The rows hold what the model reads and no more, though images only when they are read."""
    args = copy.copy(args)
    args.remove_unused_columns = False
    return args
