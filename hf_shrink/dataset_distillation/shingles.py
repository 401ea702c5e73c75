"""Texts as sets of shingles: all runs of so many characters or words."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hf_shrink.errors import ShrinkError

Unit = Literal["characters", "words"]
SIZE = 5  # characters: a word and its neighbour's end, so that order counts and a typing error costs a few shingles
_FILL = "\0"  # stands after a text that is shorter than a shingle, so that it has one all the same
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, hence a bijection modulo 2**64


def check_shingles(unit: str, size: int) -> None:
    """Refuse shingles that there are not.

    Args:
        unit: "characters" or "words".
        size: How many of them a shingle has.

    Raises:
        ShrinkError: If there is no such unit, or the size is below 1.
    """
    if unit not in ("characters", "words"):
        raise ShrinkError(f'`shingles` must be "characters" or "words", got {unit!r}. Choose one of these.')
    if not (isinstance(size, int) and size >= 1):
        raise ShrinkError(f"`shingle_size` must be a count of at least 1, got {size}. 5 is usual.")


def hash_shingles(
    texts: Sequence[str], unit: Unit = "characters", size: int = SIZE
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash the shingles of texts, all at once.

    Args:
        texts: N normalised texts.
        unit: What a shingle is a run of.
        size: How many of them.

    Returns:
        The hashes of all shingles, text after text, and the N + 1 places where the texts begin. A shingle that a text
        holds twice stands twice. 64 bits: two shingles of a million are taken for one with a chance of 3 in 100
        million.
    """
    values, lengths = _characters(texts, size if unit == "characters" else 1)
    if unit == "words":
        values, lengths = _words(values, lengths)
        values, lengths = _fill_up(values, lengths, size)
    return _windows(values, lengths, size)


def shingle_sets(texts: Sequence[str], unit: Unit = "characters", size: int = SIZE) -> csr_matrix:
    """Which text holds which shingle.

    Args:
        texts: N normalised texts.
        unit: What a shingle is a run of.
        size: How many of them.

    Returns:
        Shape (N, number of distinct shingles), 1 where a text holds one, indices sorted.
    """
    hashes, starts = hash_shingles(texts, unit, size)
    distinct, columns = np.unique(hashes, return_inverse=True)
    sets = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(texts), len(distinct)))
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def _characters(texts: Sequence[str], least: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    filled = [text if len(text) >= least else text.ljust(least, _FILL) for text in texts]
    codes = np.frombuffer("".join(filled).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter((len(text) for text in filled), dtype=np.int64, count=len(filled))
    return codes.astype(np.uint64), lengths


def _words(codes: NDArray[np.uint64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash each word; a word ends at white space and at the end of its text."""
    starts = np.zeros(len(codes), dtype=bool)
    ends = np.cumsum(lengths)
    starts[ends - lengths] = True
    between = np.isin(codes, (ord(" "), ord("\n")))
    starts[1:] |= between[:-1]
    first = np.flatnonzero(starts)
    place = np.arange(len(codes)) - np.repeat(first, np.diff(np.append(first, len(codes))))
    mixed = np.where(
        between, np.uint64(0), _mix(codes + _powers(place))
    )  # the last word of a text has no space after it
    counts = np.add.reduceat(starts.astype(np.int64), ends - lengths)
    return np.add.reduceat(mixed, first), counts


def _powers(places: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (places.astype(np.uint64) + np.uint64(1)) << np.uint64(32)  # above any code point


def _fill_up(
    values: NDArray[np.uint64], lengths: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Append zeros to what is shorter than a shingle."""
    missing = np.maximum(size - lengths, 0)
    places = np.repeat(np.cumsum(lengths), missing)
    return np.insert(values, places, np.uint64(0)), lengths + missing


def _windows(
    values: NDArray[np.uint64], lengths: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash each run of `size` values within a text."""
    count = max(len(values) - size + 1, 0)
    hashes = values[:count].copy()
    for place in range(1, size):  # a polynomial, in place: memory is what this waits for
        hashes *= np.uint64(_MULTIPLIER)
        hashes += values[place : place + count]
    _mix(hashes)
    inside = np.ones(len(values), dtype=bool)
    ends = np.cumsum(lengths)
    for back in range(1, size):
        inside[ends - back] = False  # these runs go on into the next text
    starts = np.concatenate([[0], np.cumsum(lengths - (size - 1))])
    return hashes[inside[:count]], starts


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits, in place: a bijection, so that nothing is lost."""
    for _ in range(2):
        values *= np.uint64(_MULTIPLIER)
        values ^= values >> np.uint64(32)
    return values
