"""The small dataset: rows of the source, and columns that say where they come from and what they stand for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value
from datasets.fingerprint import Hasher
from datasets.table import InMemoryTable
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.report import BLOCK, DatasetReport
from hf_shrink.errors import ShrinkError

OWN = ("source_index", "rank", "weight", "cluster")


def check_own_columns(dataset: Dataset) -> Dataset:
    """Refuse columns that the result would overwrite, but for those of a dataset that was distilled before.

    Args:
        dataset: The source.

    Returns:
        The source without the columns of an earlier distillation.

    Raises:
        ShrinkError: If a column of the user's own bears such a name.
    """
    taken = [column for column in OWN if column in dataset.column_names]
    if taken and not BLOCK.search(dataset.info.description or ""):
        raise ShrinkError(
            f"`dataset` must have no column named {taken[0]!r}, which the result brings, got {dataset.column_names}. "
            "Rename it with dataset.rename_column()."
        )
    return dataset.remove_columns(taken) if taken else dataset


def write_result(
    dataset: Dataset,
    picked: NDArray[np.int64],
    columns: Mapping[str, NDArray[Any]],
    *,
    indices: NDArray[np.int64],
    report: DatasetReport,
) -> Dataset:
    """Take the picked rows out of the source, in an order by lot.

    Args:
        dataset: The source.
        picked: Shape (K,), positions in it, the most valuable first.
        columns: What is told of each pick beside its rank, name to values of shape (K,).
        indices: Shape (K,), what `source_index` says of each pick.
        report: How they were chosen; it becomes the description.

    Returns:
        The rows, without an indices mapping, with a fingerprint that hangs on their content alone.
    """
    order = np.random.default_rng([report.seed, len(picked)]).permutation(len(picked))
    told: dict[str, NDArray[Any]] = {
        "source_index": indices[order].astype(np.int64),
        "rank": order.astype(np.int32),
        **{name: values[order] for name, values in columns.items()},
    }
    rows = dataset.with_format(None).select(picked[order]).with_format("arrow")[:]
    features = Features(dataset.features)
    for name, values in told.items():
        rows = _put(rows, name, values)
        features[name] = Value(str(values.dtype))
    info = DatasetInfo(
        description=report.description(),
        license=dataset.info.license,
        citation=dataset.info.citation,
        homepage=dataset.info.homepage,
        dataset_name=dataset.info.dataset_name,
    )
    rows = rows.combine_chunks().cast(features.arrow_schema)
    return Dataset(InMemoryTable(rows), info=info, split=dataset.split, fingerprint=_content_hash(rows))


def _put(rows: pa.Table, name: str, values: NDArray[Any]) -> pa.Table:
    column = pa.array(values)
    if name in rows.column_names:
        return rows.set_column(rows.column_names.index(name), name, column)
    return rows.append_column(name, column)


def _content_hash(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return Hasher.hash_bytes(sink.getvalue().to_pybytes())
