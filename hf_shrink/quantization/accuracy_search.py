"""The fewest modules in float, and the fewest bytes, that keep an accuracy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_IN_FLOAT = 0.5  # share of the modules: with more of them in float the model is hardly quantized


@dataclass(frozen=True)
class Trial:
    """One artifact that was made and measured.

    Args:
        method: Name of the quantizer.
        ignore: Modules that stayed in float.
        size_bytes: Of its weights on disk.
        drop: How much worse than the float model it is, in the measure's unit; NaN counts as infinite.
        artifact: Whatever the maker wants to have back.
    """

    method: str
    ignore: tuple[str, ...]
    size_bytes: int
    drop: float
    artifact: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Candidate:
    """One method of the search.

    Args:
        method: Its name.
        order: Gives the modules that may stay in float, those first that are most worth it; called once at most.
        make: Makes and measures an artifact with these modules in float.
    """

    method: str
    order: Callable[[], Sequence[str]]
    make: Callable[[tuple[str, ...]], Trial]


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Args:
        best: The smallest artifact that keeps the accuracy; where none does, the one with the least drop.
        met: Whether it keeps it.
        trials: All that were made, in this order.
    """

    best: Trial
    met: bool
    trials: tuple[Trial, ...]

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON values, without the artifacts."""
        trials: list[Mapping[str, Any]] = [
            {"method": t.method, "in_float": len(t.ignore), "bytes": t.size_bytes, "drop": _json(t.drop)}
            for t in self.trials
        ]
        return {"met": self.met, "drop": _json(self.best.drop), "trials": trials}


def find_smallest(candidates: Sequence[Candidate], max_drop: float) -> Outcome:
    """Search for the smallest artifact that loses no more than is accepted.

    Methods are tried as they are, the cheapest first, until one keeps the accuracy. The cheaper ones are then tried
    with modules in float: 1, 2, 4, … of the most sensitive ones, until they keep it or are no longer smaller, and
    between the last two counts by bisection. The drop need not fall with every module, so this is near the fewest.

    Args:
        candidates: Methods, the cheapest first; at least one.
        max_drop: The drop that is accepted; infinite to take the first method as it is.

    Returns:
        The outcome.
    """
    trials: list[Trial] = []
    best, failed = None, []
    for candidate in candidates:
        trials.append(candidate.make(()))
        if trials[-1].drop <= max_drop:
            best = trials[-1]
            break
        failed.append(candidate)
    for candidate in failed:
        limit = math.inf if best is None else best.size_bytes
        found = _fewest_in_float(candidate, max_drop, limit, trials)
        best = found if found is not None else best
    if best is not None:
        return Outcome(best, True, tuple(trials))
    closest = min(trials, key=lambda t: (math.inf if math.isnan(t.drop) else t.drop, t.size_bytes))
    return Outcome(closest, False, tuple(trials))


def _fewest_in_float(candidate: Candidate, max_drop: float, below: float, trials: list[Trial]) -> Trial | None:
    """The trial with the fewest modules in float that keeps the accuracy in fewer bytes, or None."""
    order = tuple(candidate.order())
    most = math.floor(MOST_IN_FLOAT * len(order))
    made: dict[int, Trial] = {}

    def keeps(count: int) -> bool:
        made[count] = candidate.make(order[:count])
        trials.append(made[count])
        return made[count].drop <= max_drop and made[count].size_bytes < below

    fails, count = 0, min(1, most)
    while count and not keeps(count):
        if count == most or made[count].size_bytes >= below:
            return None
        fails, count = count, min(2 * count, most)
    while count - fails > 1:
        middle = (fails + count) // 2
        fails, count = (fails, middle) if keeps(middle) else (middle, count)
    return made.get(count)


def _json(drop: float) -> float | None:
    return round(drop, 6) if math.isfinite(drop) else None
