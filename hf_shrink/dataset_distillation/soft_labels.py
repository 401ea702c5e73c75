"""What a teacher, or a head that has not seen the row, says about each row: one column of scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, List, Value
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.dataset_distillation.dealt_batches import deal_batches, longest_first, processes
from hf_shrink.dataset_distillation.discriminant import out_of_fold_probabilities
from hf_shrink.dataset_distillation.encoded_parts import InMemory
from hf_shrink.dataset_distillation.vectors import check_vectors
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.columns import TOKENIZED, find_columns
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.encoding import SOFT_LABEL
from hf_shrink.inputs.labels import class_order
from hf_shrink.inputs.models import load_model, load_processing_class
from hf_shrink.inputs.rows import MODEL_INPUTS, default_collator, tokenize_rows
from hf_shrink.inputs.tasks import find_task

TASKS = (  # one vector of scores a row
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "image_classification",
    "audio_classification",
)
LARGEST = float(np.finfo(np.float16).max)
SMALLEST = 1e-7  # a probability below this is none that a head could tell from 0


def attach_soft_labels(
    dataset: Dataset,
    teacher: Any,
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    processing_class: Any = None,
    batch_size: int = 32,
    max_length: int | None = None,
) -> Dataset:
    """Add the column `soft_label`: the teacher's scores before the softmax, in half precision.

    They are kept as they are, and not as probabilities: any temperature and any loss of `DistillationTrainer` then
    gives what it gives with the teacher itself, within what half precision rounds. `softmax(soft_label)` are the
    probabilities (of a multi-label teacher `sigmoid`, of a regression the value itself). A row takes 2 bytes a class.

    The classes stand in the order of the dataset's, matched by name; where labels are written out, in that of
    `class_encode_column`; without labels in the teacher's. Under `accelerate launch` the processes share the
    rows, and each returns them all.

    Args:
        dataset: Raw rows, or rows that are tokenised for the teacher.
        teacher: A model, folder or Hub id for the same task; an instance is put onto the accelerator, if there is one.
        text_column: The text's or image's column, or two for pairs; found where it is None.
        label_column: The label's column, whose class names count; found where it is None.
        processing_class: What prepares raw rows; loaded from where the teacher was if None and needed.
        batch_size: Rows that the teacher reads at once.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's own limit.

    Returns:
        The rows with the column, in their order.

    Raises:
        ShrinkError: If the teacher is for another task or other classes, or gives no finite score for some row.
    """
    check_counts(batch_size=batch_size, max_length=max_length)
    if not len(dataset):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    model, state = load_model(teacher), processes()
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`teacher` must be a transformers model, got {type(model).__name__}. Give the model it was made from."
        )
    if (task := find_task(model)) not in TASKS:
        raise ShrinkError(
            f"`teacher` must be a model for one of {list(TASKS)}, got one for {task}. Train with it as the "
            "`teacher_model` of DistillationTrainer instead."
        )
    tokenised = set(TOKENIZED) & set(dataset.column_names)
    if processing_class is None and (not tokenised or "input_ids" in tokenised):
        processing_class = load_processing_class(teacher)
    columns = find_columns(dataset, text_column=text_column, label_column=label_column)
    order = None if columns.label is None else class_order(dataset, columns.label, model.config)
    with state.main_process_first():
        rows = _inputs(dataset, columns.text, task, processing_class, max_length)
    scores = _ask(model.to(state.device), rows, default_collator(processing_class, task), order, batch_size)
    return add_soft_labels(dataset, scores)


def add_soft_labels(dataset: Dataset, scores: NDArray[Any]) -> Dataset:
    """Add scores as the column `soft_label`.

    Args:
        dataset: N rows; a column of that name is replaced.
        scores: Shape (N, C), such as logits, or the logarithms of probabilities.

    Returns:
        The rows with the column.
    """
    if SOFT_LABEL in dataset.column_names:
        dataset = dataset.remove_columns(SOFT_LABEL)
    feature = List(Value("float16"), length=scores.shape[1])
    return dataset.add_column(SOFT_LABEL, list(scores.astype(np.float16)), feature=feature)


def out_of_fold_soft_labels(
    embeddings: Any, labels: Any, *, classes: int | None = None, folds: int = 5, seed: int = 0
) -> NDArray[np.float16]:
    """Score each row by a linear head on the embeddings that was fitted to other rows.

    Args:
        embeddings: Shape (N, D).
        labels: Shape (N,), one class id a row.
        classes: C; None takes those that occur.
        folds: Parts, of which each is scored by a head that was fitted to the others; from 2 to N.
        seed: Of the parts.

    Returns:
        Shape (N, C), logarithms of probabilities, for `add_soft_labels`.

    Raises:
        ShrinkError: If the shapes do not fit, a label is no class, there is one class only, or the folds are out of
            range.
    """
    vectors, ids = check_vectors(embeddings).astype(np.float64), np.asarray(labels)
    count = int(ids.max(initial=-1)) + 1 if classes is None else classes
    if ids.shape != (len(vectors),) or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < count)).all():
        raise ShrinkError(
            f"`labels` must be one class id in [0, {count}) for each of the {len(vectors)} embeddings, got shape "
            f"{ids.shape} of {ids.dtype}. Soft labels without a teacher are for one label a row: drop rows without "
            "one, or give a `teacher`."
        )
    if len(np.unique(ids)) < 2:
        raise ShrinkError("`labels` must hold two classes or more, got one. There is nothing to tell apart.")
    if not 2 <= folds <= len(ids):
        raise ShrinkError(f"`folds` must be in [2, {len(ids)}] (the rows given), got {folds}. 5 is usual.")
    probabilities = out_of_fold_probabilities(vectors, ids.astype(np.int64), count, folds=folds, seed=seed)
    return np.log(np.maximum(probabilities, SMALLEST)).astype(np.float16)


def _inputs(
    dataset: Dataset, text: tuple[str, ...], task: str, processing_class: Any, max_length: int | None
) -> Dataset:
    """What the teacher reads, without labels: it is asked, not trained."""
    read = text or set(MODEL_INPUTS)
    dataset = dataset.select_columns([column for column in dataset.column_names if column in read])
    return tokenize_rows(dataset, processing_class, task=task, text_column=text or None, max_length=max_length)


def _ask(
    model: nn.Module, rows: Dataset, collator: Any, order: list[int] | None, batch_size: int
) -> NDArray[np.float16]:
    def scores(batch: Mapping[str, Any], positions: NDArray[np.int64]) -> NDArray[np.float16]:
        with torch.inference_mode():
            logits = model(**{name: value.to(state.device) for name, value in batch.items()}).logits.float().cpu()
        table = logits.numpy() if order is None else logits.numpy()[:, order]
        good = (np.abs(table) <= LARGEST).all(axis=1)  # NaN fails too
        if not good.all():
            raise ShrinkError(
                f"`teacher` must give finite scores of at most {LARGEST:.0f}, but for row {positions[~good].min()} it "
                "does not. Look at this row; a model in half precision may need float32."
            )
        return table.astype(np.float16)

    state = processes()
    with evaluation_mode([model]):
        return deal_batches(
            rows,
            longest_first(rows),
            collator,
            scores,
            state,
            batch_size=batch_size,
            chunk_rows=batch_size,
            keep=InMemory(len(rows)),
            title="Asking the teacher",
        )
