"""Labels of training rows, numbered as the model has them that reads or answers them."""

from typing import Any

from datasets import Dataset

from hf_shrink.distillation.guidance import NAMED_CLASSES
from hf_shrink.inputs import align_labels, find_columns


def number_labels(rows: Dataset, model: Any, task: str, columns: dict[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """Number the labels by the model's names: numbered otherwise they would contradict it without a word.

    Args:
        rows: Raw rows.
        model: Its config names the labels.
        task: Name in `TASKS`; those whose outputs have no names leave the rows as they are.
        columns: How rows are read: `text_column`, `label_column`, `max_length`.

    Returns:
        The rows, and how they are read now.
    """
    if task not in NAMED_CLASSES:
        return rows, columns
    found = find_columns(rows, text_column=columns["text_column"], label_column=columns["label_column"])
    if found.label is None:
        return rows, columns
    return align_labels(rows, found.label, model.config), {**columns, "label_column": found.label}
