"""Scores and hidden states as columns on disk: without padding, in half precision or packed."""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, Features, concatenate_datasets
from datasets.arrow_writer import ArrowWriter
from torch import Tensor

from hf_shrink.errors import ShrinkError

LARGEST = torch.finfo(torch.float16).max
KEY_COLUMN, SCORES_COLUMN = "key", "scores"
LIKELIEST_COLUMN = "likeliest"  # in place of the scores, where the likeliest tokens alone are kept
FOLDER, SPLIT = "data", "train"  # so that load_dataset finds the parts
PART_ROWS, PART_BYTES = 8192, 500 * 10**6
BATCH_ROWS, BATCH_BYTES = 1000, 50 * 10**6  # few record batches, so that a cache of a million rows opens at once


def pack(values: Tensor, own: Tensor | None, *, softmax: bool) -> pa.Array:
    """Make a column in half precision; values that are not finite or outside its range are refused.

    Args:
        values: Shape (B, C), or (B, T, C).
        own: Shape (B, T), True at the values to keep; None keeps all.
        softmax: Whether the values go into one, so that what lies below the range of half precision, such as -inf,
            may be raised into it: its probability is 0 all the same.

    Returns:
        B rows of C values, or of lists of C values.
    """
    return pack_as(lambda kept: _half(kept, softmax), values, own)


def pack_as(convert: Callable[[Tensor], Tensor], values: Tensor, own: Tensor | None) -> pa.Array:
    """Make a column of what becomes of each vector.

    Args:
        convert: Takes the N vectors to keep, shape (N, C), and gives as many of any width and dtype.
        values: Shape (B, C), or (B, T, C).
        own: Shape (B, T), True at the values to keep; None keeps all.

    Returns:
        B rows of one vector, or of one vector a token.

    Raises:
        ShrinkError: If the values are not one a token.
    """
    if own is not None and values.shape[:2] != own.shape:
        raise ShrinkError(
            f"`teacher` must give one vector a token to be cached, got {values.shape[1]} for {own.shape[1]} tokens. "
            "Train with the teacher itself."
        )
    lengths = None
    if values.ndim == 3:
        own = torch.ones(values.shape[:2], dtype=torch.bool) if own is None else own
        lengths, values = own.sum(1).cpu(), values[own.to(values.device)]  # (B,), (sum of the lengths, C)
    values = convert(values).cpu()
    inner = pa.FixedSizeListArray.from_arrays(pa.array(values.numpy().reshape(-1)), values.shape[-1])
    if lengths is None:
        return inner
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    return pa.ListArray.from_arrays(pa.array(offsets.numpy()), inner)


def unpack(column: pa.ChunkedArray, own: Tensor | None, padding: float) -> Tensor:
    """Make a batch of a column's rows.

    Args:
        column: B rows as `pack` or `pack_as` made them.
        own: Shape (B, T), True where the values go; None where all rows are of one length.
        padding: What stands elsewhere.

    Returns:
        Shape (B, C) or (B, T, C), in the column's dtype.
    """
    array: Any = column.combine_chunks()
    rows, in_lists = len(array), pa.types.is_list(array.type)
    inner = array.flatten() if in_lists else array
    values = inner.flatten().to_numpy(zero_copy_only=False).reshape(-1, inner.type.list_size)
    flat = torch.from_numpy(values.copy())  # memory-mapped pages are read-only
    if not in_lists:
        return flat
    if own is None:
        return flat.reshape(rows, -1, flat.shape[-1])
    batch = torch.full((*own.shape, flat.shape[-1]), padding, dtype=flat.dtype)
    batch[own] = flat
    return batch


class PartWriter:
    """Writes rows in parts that are either whole or not there.

    A part bears its final name once it is complete. What was added before an exception is completed too; a process
    that is killed loses the part that it was at.

    Args:
        folder: The cache.
        first: Number of the first part.
        step: From one number to the next: the processes take turns.
    """

    def __init__(self, folder: Path, first: int = 0, step: int = 1) -> None:
        self._folder = folder
        self._number = first
        self._step = step
        self._writer: Any = None
        self._rows = self._bytes = 0
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, table: pa.Table) -> None:
        """Add rows.

        Args:
            table: The same columns each time.
        """
        self._waiting.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        waiting = sum(t.num_rows for t in self._waiting), sum(t.nbytes for t in self._waiting)
        if waiting[0] >= BATCH_ROWS or waiting[1] >= BATCH_BYTES:
            self._flush()
        if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
            self.close()

    def close(self) -> None:
        """Complete the part that is being written, if there is one."""
        self._flush()
        if self._writer is None:
            return
        self._writer.finalize()
        os.replace(self._unfinished, self._unfinished.with_suffix(".arrow"))
        self._writer = None
        self._number += self._step
        self._rows = self._bytes = 0

    @property
    def _unfinished(self) -> Path:
        return self._folder / FOLDER / f"{SPLIT}-{self._number:05d}.unfinished"

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting = []
        if self._writer is None:
            features = Features.from_arrow_schema(table.schema)
            self._writer = ArrowWriter(features=features, path=str(self._unfinished))
        self._writer.write_table(table, writer_batch_size=len(table))


def part_files(folder: Path) -> list[Path]:
    """The complete parts of a cache.

    Args:
        folder: The cache.

    Returns:
        Their paths, in order.
    """
    return sorted((folder / FOLDER).glob(f"{SPLIT}-*.arrow"))


def open_parts(folder: Path) -> Dataset | None:
    """Map a cache's rows into memory.

    Args:
        folder: The cache.

    Returns:
        Its rows, which come as Arrow tables; None where no part is complete.
    """
    parts = [Dataset.from_file(str(part)) for part in part_files(folder)]
    return concatenate_datasets(parts).with_format("arrow") if parts else None


def bytes_a_token(rows: Dataset) -> int | None:
    """What the answer about a token takes in memory and on disk.

    Args:
        rows: Of a cache.

    Returns:
        Bytes, without those of hidden states; None where a row has one answer.
    """
    types = {field.name: field.type for field in rows.data.schema}
    kept: Any = types.get(LIKELIEST_COLUMN, types.get(SCORES_COLUMN))
    if not pa.types.is_list(kept):
        return None
    vector = kept.value_type
    return vector.list_size * vector.value_type.bit_width // 8


def hidden_column(layer: int) -> str:
    """Name of the column with a layer's states.

    Args:
        layer: Counted from 0.

    Returns:
        The name.
    """
    return f"hidden_{layer}"


def _half(values: Tensor, softmax: bool) -> Tensor:
    values = values.float()
    if softmax:
        values = values.clamp(min=-LARGEST)
    if not (values.abs() <= LARGEST).all():  # NaN fails too
        raise ShrinkError(
            f"`teacher` must give finite values of at most {LARGEST:.0f} to be cached in half precision, got "
            f"{values.abs().max().item()}. Train with the teacher itself."
        )
    return values.half()
