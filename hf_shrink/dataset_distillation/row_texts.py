"""The text of a row as duplicates are compared: normalised, the columns joined."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError

BATCH = 10_000  # rows that are Python strings at once while they are read
BETWEEN = "\n"  # between two columns; no normalised text holds one


def read_texts(dataset: Dataset, columns: Sequence[str], argument: str = "dataset") -> list[str]:
    """Read rows as normalised texts.

    Args:
        dataset: The rows.
        columns: Of text, or of lists of words; several are joined, so that a pair is compared as a whole.
        argument: What the user calls the dataset.

    Returns:
        One text a row; an empty cell is an empty text.

    Raises:
        ShrinkError: If a column is missing.
    """
    if missing := [column for column in columns if column not in dataset.column_names]:
        raise ShrinkError(
            f"`{argument}` must have the text's columns {list(columns)}, but {missing} are not among its "
            f"{dataset.column_names}. Rename its columns, or name the text's."
        )
    texts: list[str] = []
    for batch in dataset.with_format("arrow").select_columns(list(columns)).iter(BATCH):
        cells = [_strings(batch[column], column, argument) for column in columns]
        texts += [BETWEEN.join(normalise(cell) for cell in row) for row in zip(*cells, strict=True)]
    return texts


def normalise(text: str) -> str:
    """Take away what makes no difference: compatibility forms (NFKC), case, and how much white space there is.

    Args:
        text: Of any length.

    Returns:
        The text in NFKC and case-folded, with single spaces.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # folding may undo the form


def digests(texts: Sequence[str]) -> NDArray[np.void]:
    """Hash texts, so that a corpus is compared in 16 bytes a row.

    Args:
        texts: N texts.

    Returns:
        Shape (N,), 16 bytes each (BLAKE2b).
    """
    packed = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(packed, dtype="V16")


def _strings(cells: pa.ChunkedArray, column: str, argument: str) -> list[str]:
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        inner = cells.type.value_type
    else:
        inner = cells.type
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise ShrinkError(
            f"`{argument}` must hold text to be compared by it, but {column!r} holds {cells.type}. Name a column of "
            "text, or compare embeddings."
        )
    found = cells.to_pylist()
    return [" ".join(w or "" for w in cell) if isinstance(cell, list) else cell or "" for cell in found]
