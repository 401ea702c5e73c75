"""Which range of the activations gets their 8 bits, where it is fixed before the model runs."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hf_shrink.quantization.activation_histograms import VALUES, Histogram

Range = tuple[float, float]
Floats = NDArray[np.float64]

STEPS = 255  # of 8 bits
COVERED = 0.9999  # share of the values within the range of "percentile"
SHRINKS = 0.85 ** np.arange(170)  # down to a 10^12th of the outermost value
ROUNDS = 2  # one end is moved while the other stays; a second round hardly moves either


def minmax_range(histogram: Histogram) -> Range:
    """The range of all values: one outlier makes every step coarse.

    Args:
        histogram: What was met.

    Returns:
        Both ends; 0 is within.
    """
    return min(histogram.low, 0.0), max(histogram.high, 0.0)


def percentile_range(histogram: Histogram) -> Range:
    """The range of 99.99 % of the values; as many lie beyond either end.

    Args:
        histogram: What was met.

    Returns:
        Both ends; 0 is within.
    """
    order = np.argsort(VALUES, kind="stable")
    order = order[histogram.counts[order] > 0]
    reached = np.cumsum(histogram.counts[order])
    beyond = reached[-1] * (1 - COVERED) / 2
    low, high = VALUES[order[np.searchsorted(reached, [beyond, reached[-1] - beyond])]].tolist()
    least, largest = minmax_range(histogram)
    return max(least, min(low, 0.0)), min(largest, max(high, 0.0))


def mse_range(histogram: Histogram) -> Range:
    """The range with the least squared error, of what is rounded within it and what is clipped beyond.

    Args:
        histogram: What was met.

    Returns:
        Both ends; 0 is within.
    """
    met = histogram.counts > 0
    values, counts = VALUES[met].astype(np.float64), histogram.counts[met]
    least, largest = minmax_range(histogram)
    low, high = least, largest
    for _ in range(ROUNDS):
        high = min(largest * SHRINKS, key=lambda end: _squared_error(values, counts, low, end))
        low = min(least * SHRINKS, key=lambda end: _squared_error(values, counts, end, high))
    return float(low), float(high)


RANGES: Mapping[str, Callable[[Histogram], Range]] = MappingProxyType(
    {"mse": mse_range, "minmax": minmax_range, "percentile": percentile_range}
)


def _squared_error(values: Floats, counts: Floats, low: float, high: float) -> float:
    step = (high - low) / STEPS
    kept = np.clip(values, low, high)
    # Less than half a step becomes 0; what is larger is off by anything up to half a step.
    rounding = np.where(np.abs(kept) < step / 2, np.square(kept), step**2 / 12)
    return float(counts @ (np.square(values - kept) + rounding))
