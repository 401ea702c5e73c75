"""How many rows are kept, of all and of each stratum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.strata import Strata
from hf_shrink.errors import ShrinkError

FORMS = 'Write a share as 0.1, a count as 5000, rows a class as {"per_class": 50}, tokens as {"tokens": 2_000_000}.'


@dataclass(frozen=True)
class Budget:
    """What may be kept; exactly one of the four is given.

    Args:
        share: Of the rows given, in (0, 1].
        rows: Number of rows.
        per_class: Number of rows of each class.
        tokens: Number of tokens, which is never exceeded.
    """

    share: float | None = None
    rows: int | None = None
    per_class: int | None = None
    tokens: int | None = None

    def total(self, given: int, strata: Strata) -> int:
        """Rows to keep under a budget of rows.

        Args:
            given: Rows of the dataset as it came.
            strata: Of the rows that may be kept.

        Returns:
            The number.

        Raises:
            ShrinkError: If there are not as many rows, or not one for each class.
        """
        there, classes = len(strata.ids), len(strata.names)
        if self.per_class is not None:
            return self.per_class * classes
        total = self.rows if self.rows is not None else round((self.share or 0.0) * given)
        if not classes <= total <= there:
            least = f"one for each of the {classes} classes" if classes > 1 else "one row"
            gone = f" of the {given} given" if there < given else ""
            raise ShrinkError(
                f"`budget` must be in [{classes}, {there}] rows ({least}, at most the {there} that there are{gone}), "
                f"got {f'{self} = {total} rows' if self.rows is None else self}. {FORMS}"
            )
        return total

    def __str__(self) -> str:
        if self.share is not None:
            return f"{100 * self.share:g} %"
        if self.rows is not None:
            return f"{self.rows:,} rows"
        return f"{self.per_class:,} rows a class" if self.per_class is not None else f"{self.tokens:,} tokens"


def read_budget(budget: Any) -> Budget:
    """Read what users write.

    Args:
        budget: A share in (0, 1) or 1.0, a number of rows, `{"per_class": n}` or `{"tokens": n}`.

    Returns:
        The budget.

    Raises:
        ShrinkError: If it is none of these.
    """
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, Mapping) and len(budget) == 1:
        ((name, value),) = budget.items()
        if name in ("per_class", "tokens") and _is_count(value):
            return Budget(**{name: int(value)})
    elif _is_count(budget):
        return Budget(rows=int(budget))
    elif isinstance(budget, float | np.floating) and 0 < budget <= 1:
        return Budget(share=float(budget))
    raise ShrinkError(f"`budget` must be a share in (0, 1], or a count of at least 1, got {budget!r}. {FORMS}")


def share_out(total: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each stratum its share of the rows: in proportion, the largest remainders first (Hamilton), none without.

    Args:
        total: Rows to keep, in [S, sum of the sizes].
        sizes: Shape (S,), rows that each stratum has, all above 0.

    Returns:
        Shape (S,), rows to keep of each; they sum to the total.
    """
    exact = sizes * (total / sizes.sum())
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    by_remainder = np.argsort(-(exact - counts), kind="stable")
    while (missing := total - counts.sum()) > 0:
        room = [i for i in by_remainder if counts[i] < sizes[i]][:missing]
        counts[room] += 1
    while counts.sum() > total:  # classes that were lifted to one row are paid for by those furthest above their share
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return counts


def rows_of_each(budget: Budget, given: int, strata: Strata) -> NDArray[np.int64]:
    """Rows to keep of each stratum under a budget of rows.

    Args:
        budget: Not one of tokens.
        given: Rows of the dataset as it came.
        strata: Of the rows that may be kept.

    Returns:
        Shape (S,).

    Raises:
        ShrinkError: If a class has fewer rows than it is to keep.
    """
    total = budget.total(given, strata)
    if budget.per_class is None:
        return share_out(total, strata.sizes)
    smallest = int(np.argmin(strata.sizes))
    if strata.sizes[smallest] < budget.per_class:
        raise ShrinkError(
            f"`budget` must be at most the rows of the smallest class, {strata.sizes[smallest]} of "
            f"{strata.names[smallest]!r}, got {budget}. Take fewer, or a share, which follows the classes' sizes."
        )
    return np.full(len(strata.names), budget.per_class, dtype=np.int64)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)
