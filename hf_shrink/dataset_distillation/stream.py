"""A stream of rows that may not fit into memory: one pass, a sample of it stays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError


@dataclass(frozen=True)
class StreamSample:
    """Rows that stay of a stream.

    Args:
        rows: The sample, in the order of the stream.
        positions: Shape (N,), where each stood in the stream.
        seen: Rows that went by.
    """

    rows: Dataset
    positions: NDArray[np.int64]
    seen: int


def sample_stream(stream: IterableDataset, most_rows: int, seed: int) -> StreamSample:
    """Draw rows from a stream in one pass, each with the same chance (Vitter's algorithm R, 1985).

    Args:
        stream: The rows; a stream of fewer than `most_rows` stays whole.
        most_rows: Rows to keep at most, in memory all the time.
        seed: Of the draw.

    Returns:
        The sample.

    Raises:
        ShrinkError: If nothing comes.
    """
    generator = np.random.default_rng([seed, most_rows])
    kept: list[tuple[int, dict[str, Any]]] = []
    position = -1
    for position, row in enumerate(stream):
        if position < most_rows:
            kept.append((position, row))
        elif (place := int(generator.integers(position + 1))) < most_rows:
            kept[place] = (position, row)
    if not kept:
        raise ShrinkError("`dataset` must hold rows, but the stream ended at once. Check the split and its filters.")
    kept.sort(key=lambda pair: pair[0])
    rows = Dataset.from_list([row for _, row in kept], features=stream.features)
    rows.info.update(stream.info)
    return StreamSample(rows, np.array([place for place, _ in kept], dtype=np.int64), position + 1)
