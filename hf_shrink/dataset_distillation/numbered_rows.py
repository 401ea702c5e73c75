"""Rows that a training run tells apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Value
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.row_ids import ROW_IDS, ROW_LABELS

NOT_NUMBERED = (
    "`train_dataset` must be what callback.number(dataset) gave, got rows without numbers. Give it to the Trainer as "
    "it is: map(), select() and the like lose the numbers where unused columns are removed."
)


class NumberedRows(Dataset):
    """A `Dataset` with a column of positions, which stays where a `Trainer` removes what `forward` does not take."""

    def remove_columns(self, column_names: str | list[str], new_fingerprint: str | None = None) -> Dataset:
        """Remove columns, but never the positions.

        Args:
            column_names: One, or several.
            new_fingerprint: Of what is left.

        Returns:
            The rows without them.
        """
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        kept = [name for name in names if name != ROW_IDS]
        return super().remove_columns(kept, new_fingerprint) if new_fingerprint else super().remove_columns(kept)


class NumberedCollator:
    """Carries positions and labels past a collator and a loss.

    Args:
        collator: Makes a padded batch of a list of rows.
    """

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Make a batch.

        Args:
            rows: Rows of `NumberedRows`.

        Returns:
            What the collator makes, with `ROW_IDS` and, where there are labels, `ROW_LABELS`.

        Raises:
            ShrinkError: If the rows are not numbered.
        """
        if not all(ROW_IDS in row for row in rows):
            raise ShrinkError(NOT_NUMBERED)
        batch = self.collator([{name: value for name, value in row.items() if name != ROW_IDS} for row in rows])
        batch[ROW_IDS] = torch.tensor([int(row[ROW_IDS]) for row in rows])
        if "labels" in batch:
            batch[ROW_LABELS] = batch["labels"]
        return batch


def number_rows(dataset: Dataset) -> NumberedRows:
    """Number rows from 0.

    Args:
        dataset: The training set, as the Trainer is to have it.

    Returns:
        The same rows, with their format and one column more.

    Raises:
        ShrinkError: If it is no `Dataset`, such as a stream, or empty, or numbered already.
    """
    if not isinstance(dataset, Dataset):
        raise ShrinkError(
            f"`dataset` must be a Dataset, got {type(dataset).__name__}. Take what you need of a stream: "
            "Dataset.from_list(list(stream.take(1000)))."
        )
    if not len(dataset) or ROW_IDS in dataset.column_names:
        what = "numbered rows" if len(dataset) else "none"
        raise ShrinkError(
            f"`dataset` must have rows without numbers, got {what}. Give the dataset that it was made of."
        )
    numbered = with_column(dataset, ROW_IDS, np.arange(len(dataset)), Value("int64"))
    numbered.__class__ = NumberedRows  # the constructor would take the table without its format
    return numbered


def with_column(dataset: Dataset, name: str, values: NDArray[Any], feature: Value) -> Dataset:
    """Add a column to a dataset that may be shown as tensors or through a transform, and stays so.

    Args:
        dataset: N rows.
        name: Of the column.
        values: Shape (N,).
        feature: Its type.

    Returns:
        The rows, with one column more.
    """
    shown = dataset.format
    columns = None if set(shown["columns"]) == set(dataset.column_names) else [*shown["columns"], name]
    wider = dataset.with_format(None).add_column(name, values, feature=feature)
    wider.set_format(
        shown["type"], columns=columns, output_all_columns=shown["output_all_columns"], **shown["format_kwargs"]
    )
    return wider
