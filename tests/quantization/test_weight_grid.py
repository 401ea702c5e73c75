"""Weights rounded to a grid, against the same done by hand, and against what other quantizers find there."""

import numpy as np
import pytest
import torch

from hf_shrink.quantization.blocks import round_blocks
from hf_shrink.quantization.weight_grid import GRIDS, WeightGrid

METHODS = list(GRIDS)


def weight(rows=64, columns=96, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


def by_hand(values, bits, group_size, symmetric):
    """Float64, one group at a time."""
    out = np.empty(values.shape)
    for row in range(values.shape[0]):
        for start in range(0, values.shape[1], group_size):
            group = values[row, start : start + group_size].astype(np.float64)
            low, high = min(group.min(), 0.0), max(group.max(), 0.0)
            if symmetric:
                step = max(-low, high) / (2 ** (bits - 1) - 1)
                lowest, highest = -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1
            else:
                step = (high - low) / (2**bits - 1)
                lowest = round(low / step)
                highest = lowest + 2**bits - 1
            out[row, start : start + group_size] = np.clip(np.round(group / step), lowest, highest) * step
    return out


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_rounding_done_by_hand(method):
    grid, values = GRIDS[method], weight()
    expected = by_hand(values.numpy(), grid.bits, grid.group_size or values.shape[1], grid.symmetric)
    np.testing.assert_allclose(grid.nearest(values).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_it_uses_as_many_levels_as_there_are_bits(method):
    grid, values = GRIDS[method], weight()
    rounded = grid.nearest(values).reshape(-1, grid.group_size or values.shape[1])
    most = max(len(group.unique()) for group in rounded)
    assert most <= 2**grid.bits
    assert method == "int8" or most == 2**grid.bits


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_on_the_grid_stays_there(method):
    grid = GRIDS[method]
    once = grid.nearest(weight(rows=2048, columns=768))
    torch.testing.assert_close(grid.nearest(once), once, atol=1e-7, rtol=1e-6)


def test_ends_half_way_between_levels_are_both_in_use():
    # -0.5 to 2.5 with steps of 1: rounded to even, both ends move inwards, and the group is narrower the next time.
    values = torch.tensor([[-0.5, 2.5, 0.9, 1.6]])
    grid = WeightGrid(bits=2, group_size=4, symmetric=False)
    once = grid.nearest(values)
    assert once.max() - once.min() == 3
    assert torch.equal(grid.nearest(once), once)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_zeros(method):
    values = weight() + 0.3  # far from zero: without it in the grid the nearest level is another
    values[:, ::3] = 0
    assert (GRIDS[method].nearest(values)[:, ::3] == 0).all()
    assert (GRIDS[method].nearest(torch.zeros(2, 32)) == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_gradients_pass_unchanged(method):
    values, upstream = weight().requires_grad_(), weight(seed=1)
    GRIDS[method].fake_quantize(values).backward(upstream)
    assert torch.equal(values.grad, upstream)


def test_bf16_weights_are_rounded_in_fp32():
    values = weight().bfloat16()
    rounded = GRIDS["int4"].nearest(values)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), GRIDS["int4"].nearest(values.float()), atol=0, rtol=2**-8)


@pytest.mark.parametrize("method", ["int4", "int3", "int2"])
def test_torchaos_quantizer_finds_each_weight_where_it_is(method):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    grid, bounds = GRIDS[method], (-(2 ** (GRIDS[method].bits - 1)), 2 ** (GRIDS[method].bits - 1) - 1)
    rounded = grid.nearest(weight())
    block, kind = (1, grid.group_size), primitives.MappingType.ASYMMETRIC
    scale, zero = primitives.choose_qparams_affine(rounded, kind, block, torch.int8, *bounds)
    levels = primitives.quantize_affine(rounded, block, scale, zero, torch.int8, *bounds)
    back = primitives.dequantize_affine(levels, block, scale, zero, torch.int8, *bounds)
    torch.testing.assert_close(back, rounded, atol=1e-6, rtol=1e-5)


def test_onnx_int4_finds_each_weight_where_it_is():
    rounded = GRIDS["int4"].nearest(weight(rows=512, columns=384))
    blocks = round_blocks(rounded.numpy(), group_size=32, symmetric=False)
    back = (blocks.levels.astype(np.float32) - blocks.zeros[..., None]) * blocks.scales[..., None]
    np.testing.assert_allclose(back.reshape(rounded.shape), rounded.numpy(), atol=1e-6)
