"""Weights rounded to 4 bits in blocks along a row, each block with its own scale and zero point."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LEVELS = 16
MIDDLE = 8  # the zero point of symmetric blocks, and what padding is stored as
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of the range that a block's weights span
AT_ONCE = 1 << 12  # blocks; what a processor's cache holds


@dataclass(frozen=True)
class Blocks:
    """A matrix in 4 bits: a weight is (level - zero) * scale.

    Args:
        levels: Shape (rows, blocks, group size), in [0, 15]; the last block of a row is filled up with its zero.
        scales: Shape (rows, blocks).
        zeros: Shape (rows, blocks), in [0, 15].
    """

    levels: Bytes
    scales: Floats
    zeros: Bytes


def round_blocks(weights: Floats, *, group_size: int, symmetric: bool) -> Blocks:
    """Choose levels, scale and zero point of every block so that the squared error is small.

    The widest range is rarely the best one: a block of 32 has one large weight, and a little off that one buys all
    others a finer grid. Each of several narrower ranges is tried, its scale then set to the best one for the levels
    that came out (least squares), and the candidate with the smallest error stays. The plain range is among them, so
    a block is never worse than rounded to nearest, and weights that lie on that grid already stay where they are.
    Zeros stay zero.

    Args:
        weights: Shape (rows, K); a block is `group_size` neighbours in a row.
        group_size: Weights that share a scale.
        symmetric: Whether zero is the middle level of every block.

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
        levels[part], scales[part], zeros[part] = _search(blocks[part], symmetric)
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


def _search(blocks: Floats, symmetric: bool) -> tuple[Floats, Floats, Floats]:
    best = _rounded(blocks, *_grid(blocks, SHRINKS[0], symmetric))
    for shrink in SHRINKS:
        scale, zero = _grid(blocks, shrink, symmetric)
        for tried in (scale, _least_squares(blocks, scale, zero)):
            found = _rounded(blocks, tried, zero)
            better = found[0] < best[0]
            best = tuple(np.where(better, new, old) for new, old in zip(found, best, strict=True))
    _, levels, scales, zeros = best
    return levels, scales, zeros


def _rounded(blocks: Floats, scale: Floats, zero: Floats) -> tuple[Floats, ...]:
    levels = _round(blocks, scale, zero)
    return np.square((levels - zero) * scale - blocks).sum(1, keepdims=True), levels, scale, zero


def _grid(blocks: Floats, shrink: float, symmetric: bool) -> tuple[Floats, Floats]:
    low = np.minimum(blocks.min(1, keepdims=True), 0) * np.float32(shrink)
    high = np.maximum(blocks.max(1, keepdims=True), 0) * np.float32(shrink)
    if symmetric:  # there is one level more below zero than above: a negative scale gives it to the larger side
        scale = np.where(high > -low, -high, -low) / np.float32(MIDDLE)
        return np.where(scale == 0, np.float32(1), scale), np.full_like(scale, MIDDLE)
    scale = (high - low) / np.float32(LEVELS - 1)
    scale[scale == 0] = 1
    return scale, np.rint(-low / scale)


def _round(blocks: Floats, scale: Floats, zero: Floats) -> Floats:
    return np.clip(np.rint(blocks / scale) + zero, 0, LEVELS - 1)


def _least_squares(blocks: Floats, scale: Floats, zero: Floats) -> Floats:
    steps = _round(blocks, scale, zero) - zero
    norm = np.square(steps).sum(1, keepdims=True)
    best = (blocks * steps).sum(1, keepdims=True) / np.where(norm == 0, 1, norm)
    return np.where(best == 0, scale, best)
