"""The k-th smallest of scores that lie in many tensors: exact, and in a few megabytes beside them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_shrink.errors import ShrinkError

Scores = Callable[
    [], Iterable[tuple[str, Tensor]]
]  # called anew for every pass: same names, order and values each time

CHUNK = 2**18  # scores that are worked on at once; some five copies of them in 32 bits are all the scratch there is
BINS = 2**16  # of a pass: 16 of a score's 32 bits
LOWEST = -(2**15)  # upper half of the lowest key
MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but its sign
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # float32 holds the values of all three


@dataclass(frozen=True)
class Threshold:
    """Where the k lowest scores end.

    Args:
        value: The k-th smallest score.
        below: Scores that are smaller than it, at most k - 1; the rest of the k equal it.
    """

    value: float
    below: int


def kth_smallest(scores: Scores, k: int) -> Threshold:
    """The k-th smallest of all scores, the one that `torch.kthvalue` finds in their concatenation.

    A float's bits, read as an integer, sort as the float does. One pass counts their upper halves, which tells the
    upper half of the k-th; a second counts the lower halves of those that share it, which bfloat16 leaves at zero.

    Args:
        scores: Called once for each of the two passes; hands out named sets of float32, bfloat16 or float16 scores of
            any shape, on any device. Infinities are allowed.
        k: From 1 (the smallest) to the number of all scores.

    Returns:
        The value, with 0.0 for zeros of either sign, and how many scores lie below it.

    Raises:
        ShrinkError: If k is out of range, a score is NaN, or scores are of another dtype.
    """
    counts, every_bit = torch.zeros(BINS + 2, dtype=torch.int64), False
    for name, values in scores():
        _check(name, values)
        counts += _histogram(values, LOWEST, shift=16)
        every_bit |= values.dtype != torch.bfloat16
    total = int(counts.sum())
    if not 1 <= k <= total:
        raise ShrinkError(f"`k` must be in [1, {total}] (the scores given), got {k}. 1 is the smallest score.")
    upper, below = _locate(counts, k)
    key = (upper + LOWEST) << 16
    if every_bit:
        counts = sum((_histogram(values, key, shift=0) for _, values in scores()), torch.zeros_like(counts))
        lower, below = _locate(counts, k)
        key += lower
    return Threshold(_value(key), below)


def chunks(values: Tensor) -> Iterator[Tensor]:
    """Cut scores into pieces in order of position, without a copy of the whole where they are not contiguous.

    Args:
        values: Any shape.

    Yields:
        One-dimensional pieces of at most `CHUNK` scores; together they are `values.flatten()`.
    """
    values = values.detach()
    if values.numel() == 0:
        return
    if values.is_contiguous():
        yield from values.view(-1).split(CHUNK)
        return
    rows = max(1, CHUNK * len(values) // values.numel())
    for part in values.split(rows):
        yield from part.reshape(-1).split(CHUNK)


def _check(name: str, values: Tensor) -> None:
    if values.dtype not in DTYPES:
        raise ShrinkError(
            f"`scores` must be float32, bfloat16 or float16, got {values.dtype} for {name!r}. "
            "Convert them with .float()."
        )
    # The largest of values with a NaN among them is NaN, and costs a tenth of asking each.
    if any(bool(chunk.amax().isnan()) for chunk in chunks(values)):
        raise ShrinkError(
            f"`scores` must not hold NaN, which has no place in their order, got NaN for {name!r}. "
            "Look for NaN in that module's weights and gradients: training may have diverged."
        )


def _histogram(values: Tensor, first: int, shift: int) -> Tensor:
    """Counts of `key >> shift` from `first` on, `BINS` of them between the counts of what is less and what is more."""
    counts = torch.zeros(BINS + 2, dtype=torch.int64, device=values.device)
    for chunk in chunks(values):
        bins = _keys(chunk).bitwise_right_shift_(shift).clamp_(first - 1, first + BINS).sub_(first - 1)
        counts += torch.bincount(bins, minlength=BINS + 2)
    return counts.cpu()


def _keys(chunk: Tensor) -> Tensor:
    """Integers that sort as the scores do; zeros of both signs are 0, as they are equal."""
    bits = chunk.float().view(torch.int32)
    sign = bits >> 31  # -1 or 0
    return (bits & MAGNITUDE).bitwise_xor_(sign).sub_(sign)


def _value(key: int) -> float:
    size = torch.tensor(abs(key), dtype=torch.int32).view(torch.float32).item()
    return -size if key < 0 else size


def _locate(counts: Tensor, k: int) -> tuple[int, int]:
    """The bin, without that of what is less, in which the k-th lies, and how many lie before that bin."""
    reached = counts.cumsum(0)
    position = int(torch.searchsorted(reached, k))
    return position - 1, int(reached[position - 1])
