"""Groups of rows that a small dataset keeps in proportion: classes, bins of a number, labels that occur together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError

BINS = 10  # quantiles of a number; at 10 the usual tests of stratification have rows enough in each
OUTSIDE = "O"  # the tag of tokens that belong to no entity
NAMES = ("string", "large_string", "bool")


@dataclass(frozen=True)
class Strata:
    """What the label column says of the rows.

    Args:
        kind: "classes", "values" (numbers, in bins), "labels" (several a row) or "none".
        ids: Shape (N,), the stratum of each row, from 0 without gaps; all 0 for "labels" and "none".
        names: One a stratum.
        labels: Shape (N, L), bool, which labels each row has; for "labels" alone.
        values: Shape (N,), the numbers; for "values" alone.
    """

    kind: str
    ids: NDArray[np.int64]
    names: tuple[str, ...]
    labels: NDArray[np.bool_] | None = None
    values: NDArray[np.float64] | None = None

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each stratum."""
        return np.bincount(self.ids, minlength=len(self.names))

    def only(self, rows: NDArray[np.int64]) -> "Strata":
        """The strata of some rows.

        Args:
            rows: Their positions.

        Returns:
            The same strata, those that lost all their rows left out.
        """
        there, ids = np.unique(self.ids[rows], return_inverse=True)
        return Strata(
            self.kind,
            ids.astype(np.int64),
            tuple(self.names[i] for i in there),
            None if self.labels is None else self.labels[rows],
            None if self.values is None else self.values[rows],
        )


def find_strata(dataset: Dataset, label_column: str | None) -> Strata:
    """Read the label column.

    Args:
        dataset: The rows.
        label_column: The column, or None.

    Returns:
        The strata. Lists of labels or tags become sets; lists of anything else, and answers, tell none.

    Raises:
        ShrinkError: If a row has no label.
    """
    if label_column is None:
        return _none(len(dataset))
    feature = dataset.features[label_column]
    column = dataset.with_format(None)[label_column][:]
    if isinstance(feature, (List, LargeList)):
        return _sets(column, feature.feature)
    if not isinstance(feature, (ClassLabel, Value)):
        return _none(len(dataset))
    for row, value in enumerate(column):
        if value is None or value != value or (isinstance(feature, ClassLabel) and value < 0):
            raise ShrinkError(
                f"`label_column` must hold a label in every row, but row {row} of {label_column!r} has {value}. "
                "Filter such rows out with dataset.filter()."
            )
    if isinstance(feature, ClassLabel):
        return _classes(column, feature.names)
    if feature.dtype in NAMES or "int" in feature.dtype:
        return _classes(column, None)
    return _bins(np.asarray(column, dtype=np.float64))


def _none(rows: int) -> Strata:
    return Strata("none", np.zeros(rows, dtype=np.int64), ("all",))


def _classes(column: Sequence[Any], names: Sequence[str] | None) -> Strata:
    values, ids = np.unique(np.asarray(column), return_inverse=True)
    if names is None and len(values) > max(2, len(column) // 2):  # texts, or numbers that count something
        return _none(len(column))
    return Strata("classes", ids.astype(np.int64), tuple(str(v) if names is None else names[v] for v in values))


def _bins(values: NDArray[np.float64]) -> Strata:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    there, ids = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)
    names = tuple(f"bin {i + 1} of {len(there)}" for i in range(len(there)))
    return Strata("values", ids.astype(np.int64), names, values=values)


def _sets(column: Sequence[Sequence[Any] | None], inner: Any) -> Strata:
    if not (isinstance(inner, ClassLabel) or getattr(inner, "dtype", "").startswith(("int", "uint"))):
        return _none(len(column))
    named = inner.names if isinstance(inner, ClassLabel) else None
    outside = named.index(OUTSIDE) if named and OUTSIDE in named else None
    found = [{i for i in row or () if i is not None and i >= 0 and i != outside} for row in column]
    known = sorted(set().union(*found)) if found else []
    place = {label: position for position, label in enumerate(known)}
    labels = np.zeros((len(column), len(known)), dtype=np.bool_)
    for row, ids in enumerate(found):
        labels[row, [place[i] for i in ids]] = True
    return Strata("labels", np.zeros(len(column), dtype=np.int64), ("all",), labels=labels)
