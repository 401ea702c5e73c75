"""What a pruned model may cost at most: constraints as the user wrote them, and as numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.costs import Cost

SHARES_OR_COUNTS = ("macs", "parameters")
CONSTRAINTS = (*SHARES_OR_COUNTS, "size_mb", "latency_ms")
MEGABYTE = 1_000_000
ROUNDING = 1e-9  # of a share


@dataclass(frozen=True)
class Limits:
    """The most that a model may cost.

    Args:
        most: From the name of a constraint to its limit: multiply-accumulates of one row, elements, megabytes,
            milliseconds of one row.
    """

    most: Mapping[str, float]

    def met_by(self, cost: Cost) -> bool:
        """Whether nothing is exceeded.

        Args:
            cost: Of a model.

        Returns:
            Whether it is small enough.
        """
        return all(values_of(cost)[name] <= most * (1 + ROUNDING) for name, most in self.most.items())

    def excess(self, cost: Cost) -> float:
        """How far a model is from what is allowed.

        Args:
            cost: Of a model.

        Returns:
            Its cost over the limit, of the constraint that is exceeded most; up to 1 where all are met.
        """
        return max(values_of(cost)[name] / most for name, most in self.most.items())


def values_of(cost: Cost) -> dict[str, float]:
    """What constraints are held against.

    Args:
        cost: Of a model.

    Returns:
        From the name of each constraint to the model's value.
    """
    return {
        "macs": cost.macs,
        "parameters": cost.parameters,
        "size_mb": cost.bytes / MEGABYTE,
        "latency_ms": cost.latency_ms,
    }


def check_constraints(constraints: Any) -> Mapping[str, float]:
    """Refuse what is no constraint, before a model is loaded.

    Args:
        constraints: As the user wrote them.

    Returns:
        The same.

    Raises:
        ShrinkError: If a name is unknown, or a value out of range.
    """
    if not isinstance(constraints, Mapping) or not constraints:
        raise ShrinkError(f'`constraints` must be a dictionary such as {{"macs": 0.5}}, got {constraints!r}.')
    for name, value in constraints.items():
        if name not in CONSTRAINTS:
            raise ShrinkError(
                f"`constraints` must name some of {', '.join(CONSTRAINTS)}, got {name!r}. Choose among these."
            )
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ShrinkError(
                f"`constraints` must hold numbers above 0, got {value!r} for {name!r}. Write half as 0.5."
            )
        if name in SHARES_OR_COUNTS and isinstance(value, float) and not value <= 1:
            raise ShrinkError(
                f"`constraints` must hold a share in (0, 1] or a whole number for {name!r}, got {value}. "
                f"Write half as 0.5 and a count as {round(value)}."
            )
    return constraints


def read_constraints(constraints: Mapping[str, Any], dense: Cost) -> Limits:
    """Make constraints into numbers.

    Args:
        constraints: Checked.
        dense: What the model costs now, which shares are of.

    Returns:
        The limits.
    """
    now = values_of(dense)
    return Limits(
        {
            name: value * now[name] if name in SHARES_OR_COUNTS and isinstance(value, float) else float(value)
            for name, value in constraints.items()
        }
    )
