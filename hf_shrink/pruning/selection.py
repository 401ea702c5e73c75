"""Which units stay: those of the highest scores, to the exact number."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.config import SCOPES
from hf_shrink.pruning.threshold import Scores, chunks, kth_smallest

GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, less their whole parts, lie evenly between 0 and 1


def keep_highest(scores: Scores, sparsity: float, scope: str, max_module_sparsity: float = 1.0) -> dict[str, Tensor]:
    """Prune exactly `round(sparsity * N)` of N units, those of the lowest scores.

    Equal scores go in order of set and position, so that the choice is the same on every process and device.

    Args:
        scores: Called once for each pass, of which there are two to five; the sets have names of their own.
        sparsity: Share in [0, 1] of all units that goes.
        scope: "global" compares the units of all sets; "local" takes the same share of each set, to a unit or so,
            and takes no fewer from any set when the sparsity is higher.
        max_module_sparsity: Share in [0, 1]: no set loses more than this, rounded down to whole units; what would go
            beyond it goes from the other sets.

    Returns:
        Masks by the names of the sets, in the shapes and on the devices of their scores; True = kept.

    Raises:
        ShrinkError: If a share or the scope is out of range, the sets may not lose so many units, or a score is NaN.
    """
    for name, share in (("sparsity", sparsity), ("max_module_sparsity", max_module_sparsity)):
        if not 0 <= share <= 1:
            raise ShrinkError(f"`{name}` must be in [0, 1], got {share}. Write 80 % as 0.8.")
    if scope not in SCOPES:
        raise ShrinkError(f'`scope` must be one of {sorted(SCOPES)}, got {scope!r}. "global" compares all targets.')
    sizes = {name: values.numel() for name, values in scores()}
    # 0.29 * 100 is a little less than 29, and would round down to 28
    limits = {name: math.floor(round(max_module_sparsity * size, 6)) for name, size in sizes.items()}
    units, most = sum(sizes.values()), sum(limits.values())
    total = round(sparsity * units)
    if total > most:
        raise ShrinkError(
            f"`max_module_sparsity` must let {total} of {units} units go (sparsity {sparsity}), got "
            f"{max_module_sparsity}, which lets {most} go. Raise it, or lower the sparsity."
        )
    if scope == "local":
        return _prune_each(scores, _even_counts(sizes, limits, sparsity, total))
    return _prune_all(scores, total) if limits == sizes else _prune_within(scores, total, limits)


@dataclass
class _Cut:
    """Takes the lowest of scores that come by in pieces, and of those that equal the value the first."""

    value: float
    ties: int  # still to be taken

    def take(self, piece: Tensor) -> Tensor:
        """True where a score goes; shape (N), as the piece."""
        piece = piece.float()  # a value that stems from a float32 set would be rounded to the piece's own dtype
        goes = piece < self.value
        if self.ties:
            first = (piece == self.value).nonzero().squeeze(1)[: self.ties]
            goes[first] = True
            self.ties -= len(first)
        return goes


def _find_cut(scores: Scores, k: int) -> _Cut:
    if k == 0:
        return _Cut(-math.inf, ties=0)
    threshold = kth_smallest(scores, k)
    return _Cut(threshold.value, ties=k - threshold.below)


def _prune_all(scores: Scores, k: int) -> dict[str, Tensor]:
    cut = _find_cut(scores, k)
    return {name: _mask(values, cut) for name, values in scores()}


def _prune_each(scores: Scores, counts: Mapping[str, int]) -> dict[str, Tensor]:
    return {name: _mask(values, _find_cut(_only(name, values), counts[name])) for name, values in scores()}


def _prune_within(scores: Scores, k: int, limits: Mapping[str, int]) -> dict[str, Tensor]:
    """The k lowest among what the limits let go: of each set, its own lowest."""
    bounds = {name: _find_cut(_only(name, values), limits[name]) for name, values in scores()}

    def candidates() -> Iterator[tuple[str, Tensor]]:
        for name, values in scores():
            bound = replace(bounds[name])
            for piece in chunks(values):
                yield name, piece[bound.take(piece)]

    cut = _find_cut(candidates, k)
    return {name: _mask(values, cut, bounds[name]) for name, values in scores()}


def _only(name: str, values: Tensor) -> Scores:
    return lambda: [(name, values)]


def _mask(values: Tensor, cut: _Cut, bound: _Cut | None = None) -> Tensor:
    kept = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    left = kept.view(-1)
    for piece in chunks(values):
        if bound is None:
            goes = cut.take(piece)
        else:
            may_go = bound.take(piece)
            goes = may_go.masked_scatter(may_go, cut.take(piece[may_go]))
        torch.logical_not(goes, out=left[: len(piece)])
        left = left[len(piece) :]
    return kept


def _even_counts(sizes: Mapping[str, int], limits: Mapping[str, int], sparsity: float, total: int) -> dict[str, int]:
    """The same share of each set, to the unit; no count falls when the sparsity rises, so that nothing comes back.

    Each unit has its turn, the j-th of a set of n at the sparsity (j + offset) / n, and the first `total` go. Offsets
    differ, since sets of one size would all round up at once.
    """
    offsets = {name: (0.5 + index * GOLDEN) % 1 for index, name in enumerate(sizes)}
    counts = {}
    for name, size in sizes.items():
        counts[name] = min(max(math.ceil(sparsity * size - offsets[name]), 0), limits[name])

    def turn(name: str, unit: int) -> float:
        return (unit + offsets[name]) / sizes[name]

    over = sum(counts.values()) - total
    for _ in range(over):
        counts[max((n for n in sizes if counts[n]), key=lambda n: turn(n, counts[n] - 1))] -= 1
    for _ in range(-over):
        counts[min((n for n in sizes if counts[n] < limits[n]), key=lambda n: turn(n, counts[n]))] += 1
    return counts
