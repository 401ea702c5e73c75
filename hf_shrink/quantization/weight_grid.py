"""The grids of numbers that quantized weights lie on."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightGrid:
    """Evenly spaced values, spread anew over each group of a row.

    Zero is always one of them, so that pruned weights stay pruned, and the outermost of a group are always in use.
    Therefore weights that lie on their grid lie on that of any other round-to-nearest quantizer with as many levels,
    groups of the same size and zero points of the same kind: to quantize them once more changes nothing.

    Args:
        bits: At least 2.
        group_size: Neighbours in a row that share a step; None for the whole row.
        symmetric: As many levels below zero as above, 2 ** bits - 1 in all; otherwise all 2 ** bits, of which an
            integer zero point tells which is zero.
    """

    bits: int
    group_size: int | None
    symmetric: bool

    @torch.no_grad()
    def nearest(self, weight: Tensor) -> Tensor:
        """Round to the grid.

        Args:
            weight: Shape (O, I); I a multiple of the group size.

        Returns:
            Shape and dtype of the weight.
        """
        values = weight.detach().float().reshape(-1, self.group_size or weight.shape[-1])
        low = values.amin(1, keepdim=True).clamp_(max=0)  # amin and amax: torch.aminmax takes three times as long
        high = values.amax(1, keepdim=True).clamp_(min=0)
        if self.symmetric:
            high = torch.maximum(high, low.neg())
            low = high.neg()
        steps = 2**self.bits - (2 if self.symmetric else 1)
        step = ((high - low) / steps).clamp_(min=torch.finfo(torch.float32).tiny)
        # A little more than 1 / step: where the ends lie half-way between levels, both could otherwise be rounded
        # inwards, and the next quantizer would find a narrower group.
        inverse = (1 + 1e-6) / step
        first = (low * inverse).round_()
        levels = (values * inverse).round_()
        torch.maximum(levels, first, out=levels)
        torch.minimum(levels, first + steps, out=levels)
        return levels.mul_(step).reshape(weight.shape).to(weight.dtype)

    def fake_quantize(self, weight: Tensor) -> Tensor:
        """Round to the grid, and let gradients through as if nothing had been rounded.

        Args:
            weight: As for `nearest`.

        Returns:
            Shape and dtype of the weight.
        """
        return _StraightThrough.apply(weight, self)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, grid: WeightGrid) -> Tensor:
        return grid.nearest(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


# Of 8 bits per output channel, kernels want symmetric weights; below, each level counts.
GRIDS: Mapping[str, WeightGrid] = MappingProxyType(
    {
        "int8": WeightGrid(bits=8, group_size=None, symmetric=True),
        "int4": WeightGrid(bits=4, group_size=32, symmetric=False),
        "int3": WeightGrid(bits=3, group_size=32, symmetric=False),
        "int2": WeightGrid(bits=2, group_size=32, symmetric=False),
    }
)
