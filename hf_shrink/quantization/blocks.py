"""Weights rounded to few levels in blocks along a row, each block with its own scale and zero point."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

AT_ONCE = 1 << 12  # blocks; what a processor's cache holds


@dataclass(frozen=True)
class Levels:
    """What a weight may become.

    Args:
        count: L, how many levels there are.
        shrinks: Ranges that are tried, as shares of the one that a block's weights span.
    """

    count: int
    shrinks: tuple[float, ...]


INT4 = Levels(16, (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7))
# Of 8 bits: CPUs without VNNI add two products with 8-bit activations in 16 bits, which overflows, silently.
INT7 = Levels(128, (1.0,))


@dataclass(frozen=True)
class Blocks:
    """A matrix of few levels: a weight is (level - zero) * scale.

    Args:
        levels: Shape (rows, blocks, group size), in [0, L - 1]; the last block of a row is filled up with its zero.
        scales: Shape (rows, blocks).
        zeros: Shape (rows, blocks), in [0, L - 1].
    """

    levels: Bytes
    scales: Floats
    zeros: Bytes


def round_blocks(weights: Floats, *, group_size: int, symmetric: bool, allowed: Levels = INT4) -> Blocks:
    """Choose levels, scale and zero point of every block so that the squared error is small.

    In 4 bits the widest range is rarely the best one: a block of 32 has one large weight, and a little off that one
    buys all others a finer grid. Each of several narrower ranges is tried, its scale then set to the best one for the
    levels that came out (least squares), and the candidate with the smallest error stays. The plain range is among
    them, so a block is never worse than rounded to nearest, and weights that lie on that grid already stay there.
    Zeros stay zero.

    Args:
        weights: Shape (rows, K); a block is `group_size` neighbours in a row.
        group_size: Weights that share a scale.
        symmetric: Whether zero is the middle level of every block.
        allowed: How many levels, and which ranges are tried.

    Returns:
        The blocks.
    """
    rows, width = weights.shape
    filled = np.pad(weights, ((0, 0), (0, -width % group_size))).astype(np.float32)
    blocks = filled.reshape(-1, group_size)
    levels = np.empty(blocks.shape, np.uint8)
    scales = np.empty((len(blocks), 1), np.float32)
    zeros = np.empty((len(blocks), 1), np.uint8)
    for start in range(0, len(blocks), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        levels[part], scales[part], zeros[part] = _search(blocks[part], symmetric, allowed)
    shape = (rows, filled.shape[1] // group_size)
    return Blocks(levels.reshape(*shape, group_size), scales.reshape(shape), zeros.reshape(shape))


def pack(values: Bytes) -> Bytes:
    """Two levels a byte, the first in the low half.

    Args:
        values: Shape (..., K); an odd K is filled up with 0.

    Returns:
        Shape (..., (K + 1) // 2).
    """
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    return np.bitwise_or(even[..., ::2], np.left_shift(even[..., 1::2], np.uint8(4)))


def _search(blocks: Floats, symmetric: bool, allowed: Levels) -> tuple[Floats, Floats, Floats]:
    last = np.float32(allowed.count - 1)
    best = _rounded(blocks, *_grid(blocks, allowed.shrinks[0], symmetric, last), last)
    for shrink in allowed.shrinks:
        scale, zero = _grid(blocks, shrink, symmetric, last)
        for tried in (scale, _least_squares(blocks, scale, zero, last)):
            found = _rounded(blocks, tried, zero, last)
            better = found[0] < best[0]
            best = tuple(np.where(better, new, old) for new, old in zip(found, best, strict=True))
    _, levels, scales, zeros = best
    return levels, scales, zeros


def _rounded(blocks: Floats, scale: Floats, zero: Floats, last: np.float32) -> tuple[Floats, ...]:
    levels = _round(blocks, scale, zero, last)
    return np.square((levels - zero) * scale - blocks).sum(1, keepdims=True), levels, scale, zero


def _grid(blocks: Floats, shrink: float, symmetric: bool, last: np.float32) -> tuple[Floats, Floats]:
    low = np.minimum(blocks.min(1, keepdims=True), 0) * np.float32(shrink)
    high = np.maximum(blocks.max(1, keepdims=True), 0) * np.float32(shrink)
    if symmetric:  # there is one level more below zero than above: a negative scale gives it to the larger side
        middle = (last + 1) / 2
        scale = np.where(high > -low, -high, -low) / middle
        return np.where(scale == 0, np.float32(1), scale), np.full_like(scale, middle)
    scale = (high - low) / last
    scale[scale == 0] = 1
    return scale, np.rint(-low / scale)


def _round(blocks: Floats, scale: Floats, zero: Floats, last: np.float32) -> Floats:
    return np.clip(np.rint(blocks / scale) + zero, 0, last)


def _least_squares(blocks: Floats, scale: Floats, zero: Floats, last: np.float32) -> Floats:
    steps = _round(blocks, scale, zero, last) - zero
    norm = np.square(steps).sum(1, keepdims=True)
    best = (blocks * steps).sum(1, keepdims=True) / np.where(norm == 0, 1, norm)
    return np.where(best == 0, scale, best)
