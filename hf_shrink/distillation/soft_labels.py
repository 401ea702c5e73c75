"""A teacher that is not there: what it said stands in the rows, in a column `soft_label`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import Accelerator
from datasets import Dataset, IterableDataset

from hf_shrink.distillation.teacher import Taught
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.encoding import SOFT_LABEL

TASKS = (  # whose scores are one vector a row
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "image_classification",
    "audio_classification",
)
READ = 10_000  # rows looked at in one go
MAKE = "attach_soft_labels() of hf_shrink.dataset_distillation makes them"


@dataclass(frozen=True)
class SoftLabels:
    """Reads a batch's soft labels, as a `Teacher` would make them.

    Args:
        classes: The student's outputs.
    """

    classes: int
    name = "whose soft labels stand in the training rows"  # what a card calls it, after "the teacher"
    parameters = frozenset({SOFT_LABEL})  # columns that Trainer must not drop

    def place(self, accelerator: Accelerator) -> None:
        """Nothing to do: there is no model.

        Args:
            accelerator: Unused; part of the signature that a teacher has.
        """

    def __call__(self, inputs: Mapping[str, Any], *, hidden: bool = False) -> Taught | None:
        """What the teacher said about a batch.

        Args:
            inputs: The prepared batch.
            hidden: Unused; part of the signature that a teacher has.

        Returns:
            Its scores; None in a batch without soft labels, such as one of an evaluation.

        Raises:
            ShrinkError: If there are more or fewer than the student has outputs.
        """
        if (scores := inputs.get(SOFT_LABEL)) is None:
            return None
        if scores.shape[1:] != (self.classes,):
            raise ShrinkError(_other_classes(self.classes, scores.shape[-1]))
        return Taught(scores.float())


def holds_soft_labels(dataset: Any) -> bool:
    """Whether rows bring a teacher's scores.

    Args:
        dataset: What Trainer takes as a dataset.

    Returns:
        True for a dataset with the column.
    """
    return isinstance(dataset, (Dataset, IterableDataset)) and SOFT_LABEL in (dataset.column_names or ())


def check_soft_labels(dataset: Any, classes: int) -> None:
    """Refuse soft labels that would end in an error of another kind, or in NaN, many steps later.

    Args:
        dataset: Rows; those of a stream are checked batch by batch, and only for their number of classes.
        classes: The student's outputs.

    Raises:
        ShrinkError: If one is missing, not finite, or of another number of classes.
    """
    if not isinstance(dataset, Dataset) or not holds_soft_labels(dataset):
        return
    for number, table in enumerate(dataset.select_columns(SOFT_LABEL).with_format("arrow").iter(READ)):
        column = table.column(SOFT_LABEL).combine_chunks()
        if not _is_list(column.type):
            raise ShrinkError(
                f"`{SOFT_LABEL}` must hold one score a class in each row, got {column.type}. {MAKE}; remove a column "
                "that means something else."
            )
        if column.null_count:
            row = number * READ + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise ShrinkError(
                f"`{SOFT_LABEL}` must be filled in every row, but row {row} has none. {MAKE} for all rows: join "
                "datasets first."
            )
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (lengths != classes).any():
            raise ShrinkError(_other_classes(classes, int(lengths[lengths != classes][0])))
        scores = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, classes)
        if not (finite := np.isfinite(scores).all(axis=1)).all():
            raise ShrinkError(
                f"`{SOFT_LABEL}` must hold finite scores, but row {number * READ + int(np.argmin(finite))} does not. "
                "Drop the row; of a probability of 0 take the logarithm of a small number instead."
            )


def missing_soft_labels() -> ShrinkError:
    """The error for a training batch that has none.

    Returns:
        What to raise.
    """
    return ShrinkError(
        f"`{SOFT_LABEL}` must be in every training batch, where the rows have it and no teacher is given, but the "
        "collator left it out. Use one that keeps other columns, such as DataCollatorWithPadding."
    )


def unread_soft_labels() -> ShrinkError:
    """The error for soft labels that nobody reads.

    Returns:
        What to raise.
    """
    return ShrinkError(
        f"`train_dataset` must name its columns for `{SOFT_LABEL}` to be read, but it is no datasets.Dataset or a "
        "stream without features. Give a Dataset, or call stream.resolve_features(), or leave the column out."
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _other_classes(classes: int, found: int) -> str:
    return (
        f"`{SOFT_LABEL}` must hold one score for each of the student's {classes} outputs, got {found}. Load the "
        "student with that num_labels, or attach soft labels of a teacher for the same classes."
    )
