"""N of M consecutive inputs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.structures import STRUCTURES
from hf_shrink.pruning.structures._rows import RowUnits
from hf_shrink.pruning.targets import as_rows


@STRUCTURES.add(
    "n:m", paper="arXiv:2104.08378", form='"2:4" (any N:M with 0 < N < M)', pattern=r"(?P<n>\d+):(?P<m>\d+)"
)
def n_m(model: nn.Module, linears: Mapping[str, nn.Module], *, n: int, m: int) -> RowUnits:
    """Keep N of every M consecutive inputs of an output, the pattern of sparse tensor cores (Mishra et al., 2021).

    A unit is such a run of M; pruned it keeps its N best, of equal ones the first. Units whose loss is least go first.

    Args:
        model: Unused.
        linears: Linear maps by name.
        n: How many stay, in [1, m - 1].
        m: Of how many; it divides the inputs of every map.

    Returns:
        One set of units for each weight, of shape (outputs, inputs / m).

    Raises:
        ShrinkError: If the pattern keeps none or all, or does not fit a weight.
    """
    check_pattern(n, m)
    for name, module in linears.items():
        inputs = as_rows(module, module.get_parameter("weight")).shape[1]
        if inputs % m:
            raise ShrinkError(
                f'`structure` must divide the inputs of every target, got "{n}:{m}" for {name} with {inputs} inputs. '
                "Take another M, or add the module to `ignore`."
            )

    def units(scores: Tensor) -> Tensor:
        runs = scores.unflatten(1, (-1, m))
        return runs.masked_fill(best_of(runs, n), 0).sum(-1)  # what a pruned run loses

    def mask(kept: Tensor, scores: Callable[[], Tensor]) -> Tensor:
        return (kept[..., None] | best_of(scores().unflatten(1, (-1, m)), n)).flatten(1)

    return RowUnits(linears, (m - n) / m, units, mask)


def check_pattern(n: int, m: int) -> None:
    """Refuse a pattern that keeps none or all.

    Args:
        n: How many stay.
        m: Of how many.

    Raises:
        ShrinkError: If n is not in [1, m - 1].
    """
    if not 0 < n < m:
        raise ShrinkError(f'`structure` must be N:M with 0 < N < M, got "{n}:{m}". 2:4 keeps two of four.')


def best_of(runs: Tensor, n: int) -> Tensor:
    """Find the best in every run.

    Args:
        runs: Scores of shape (..., M).
        n: How many to find.

    Returns:
        True at the n highest along the last axis, of equal ones the first; same shape.
    """
    places = runs.unbind(-1)
    ranks = torch.zeros_like(runs, dtype=torch.int16)
    # Counting who comes before takes a third of the time of a sort, whose cost is in its many short rows.
    for rank, own, scores in zip(ranks.unbind(-1), range(len(places)), places, strict=True):
        for other, theirs in enumerate(places):
            if other != own:
                rank += theirs >= scores if other < own else theirs > scores
    return ranks < n
