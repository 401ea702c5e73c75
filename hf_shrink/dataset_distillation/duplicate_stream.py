"""Duplicates in a stream: one pass, with a digest of each row in mind."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from datasets import IterableDataset

from hf_shrink.dataset_distillation.row_texts import BETWEEN, digests, normalise
from hf_shrink.errors import ShrinkError


def deduplicate_stream(
    dataset: IterableDataset, method: str, *, text_column: str | Sequence[str] | None, label_column: str | None
) -> IterableDataset:
    """Leave out rows of a stream whose text has come already.

    Args:
        dataset: The rows.
        method: "exact": what else there is must see rows again.
        text_column: The text's column, or several.
        label_column: The column whose labels must not contradict each other.

    Returns:
        A stream that starts anew each time it is read.

    Raises:
        ShrinkError: If another method is asked for, or the columns are not named or not there.
    """
    if method != "exact":
        raise ShrinkError(
            f'`method` must be "exact" for a stream, got {method!r}. Take the rows first, as in '
            "Dataset.from_list(list(stream.take(100_000)))."
        )
    columns = (text_column,) if isinstance(text_column, str) else tuple(text_column or ())
    there = dataset.column_names
    if not columns or there is not None and not set(columns) <= set(there):
        raise ShrinkError(
            f"`text_column` must name columns of the stream, which has {there}, got {text_column!r}. Name the text."
        )
    rows = partial(_unseen, dataset=dataset, columns=columns, label=label_column)
    return IterableDataset.from_generator(rows, features=dataset.features)


def _unseen(dataset: IterableDataset, columns: Sequence[str], label: str | None) -> Iterator[Mapping[str, Any]]:
    seen: dict[bytes, Any] = {}
    contradicting = 0
    for row in dataset:
        text = BETWEEN.join(_text(row[column]) for column in columns)
        key = digests([text])[0].tobytes()
        own = None if label is None else row[label]
        if key not in seen:
            seen[key] = own
            yield row
        elif seen[key] != own:
            contradicting += 1
    if contradicting:
        warnings.warn(
            f"{contradicting} duplicates in the stream bore another label than the row that was kept. Look at them.",
            stacklevel=2,
        )


def _text(cell: Any) -> str:
    return normalise(" ".join(w or "" for w in cell) if isinstance(cell, list) else cell or "")
