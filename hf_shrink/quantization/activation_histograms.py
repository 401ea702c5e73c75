"""What the linear layers of a model are given on calibration rows, as histograms; padding is not counted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode

BINS = 1 << 16
VALUES = ((np.arange(BINS, dtype=np.uint32) << 16) | (1 << 15)).view(np.float32)  # the middle of each bin
VALUES.flags.writeable = False


@dataclass(frozen=True)
class Histogram:
    """How often each value was met.

    A value's bin is the upper half of its 32 bits: sign, exponent and 7 bits of the mantissa. Each bin is then 0.8 %
    of its values wide, however far the longest tail reaches. Bins of equal width would be too coarse for most values
    as soon as there is one outlier, or more than fit into memory.

    Args:
        counts: One number a bin, shape (65536,); a value may count more than once.
        low: The least value.
        high: The largest value.
    """

    counts: NDArray[np.float64]
    low: float
    high: float

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.counts + other.counts, min(self.low, other.low), max(self.high, other.high))


def histogram_of(values: Tensor, shares: Tensor | None = None) -> Histogram:
    """Count values.

    Args:
        values: Shape (N, D), N above 0.
        shares: What one value of each channel counts, shape (D,); 1 where it is None.

    Returns:
        The histogram.
    """
    values = values.float().contiguous()
    bins = values.view(torch.int32).bitwise_right_shift(16).bitwise_and(BINS - 1).flatten()
    weights = None if shares is None else shares.double().expand(values.shape).flatten()
    counts = torch.bincount(bins, weights, minlength=BINS)
    return Histogram(counts.double().numpy(), values.min().item(), values.max().item())


def largest_inputs(
    model: nn.Module, modules: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Find how large each channel gets of what modules are given.

    Args:
        model: A float model.
        modules: Modules of it by name, whose first argument is looked at.
        batches: Inputs by name; tokens where "attention_mask" is 0 are passed over.

    Returns:
        Shape (D,) for each module that ran.

    Raises:
        ShrinkError: If a value is not finite.
    """
    found: dict[str, Tensor] = {}

    def see(name: str, values: Tensor) -> None:
        largest = values.abs().amax(0)
        found[name] = torch.maximum(found[name], largest) if name in found else largest

    _watch(model, modules, batches, see)
    for name, largest in found.items():
        if not largest.isfinite().all():
            raise ShrinkError(
                f"`calibration_dataset` must give finite values everywhere, but what {name!r} is given on it is not. "
                "Check the model's weights for NaN."
            )
    return found


def collect_histograms(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Iterable[Mapping[str, Tensor]],
    factors: Mapping[str, Tensor],
    shares: Mapping[str, Tensor] | None = None,
) -> dict[str, Histogram]:
    """Count what modules are given.

    Args:
        model: A float model.
        modules: Modules of it by name, whose first argument is counted.
        batches: Inputs by name; tokens where "attention_mask" is 0 are not counted.
        factors: What each input channel is multiplied by before it is counted, by name.
        shares: What one value of each input channel counts, by name; 1 where it is None.

    Returns:
        A histogram for each module that ran.
    """
    found: dict[str, Histogram] = {}

    def see(name: str, values: Tensor) -> None:
        seen = histogram_of(values * factors[name], None if shares is None else shares[name])
        found[name] = found[name] + seen if name in found else seen

    _watch(model, modules, batches, see)
    return found


def _watch(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Iterable[Mapping[str, Tensor]],
    see: Callable[[str, Tensor], None],
) -> None:
    mask: Tensor | None = None

    def hook(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if len(values := _without_padding(inputs[0], mask)):
            see(name, values)

    hooks = [module.register_forward_pre_hook(partial(hook, name)) for name, module in modules.items()]
    try:
        with evaluation_mode([model]), torch.no_grad():
            for batch in batches:
                mask = batch.get("attention_mask")
                model(**batch)
    finally:
        for handle in hooks:
            handle.remove()


def _without_padding(values: Tensor, mask: Tensor | None) -> Tensor:
    """Rows of the last axis that belong to a token, or to no token at all, as behind a pooler."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[mask.flatten() != 0] if mask is not None and mask.numel() == len(rows) else rows
