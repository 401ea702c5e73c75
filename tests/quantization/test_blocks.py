import numpy as np
import pytest

from hf_shrink.quantization.blocks import pack, round_blocks


def weights(rows=40, width=96, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def dequantized(blocks):
    """Independent of the code under test: one number after the other."""
    rows, count, size = blocks.levels.shape
    values = np.zeros((rows, count * size))
    for row in range(rows):
        for place in range(count * size):
            block = place // size
            level = int(blocks.levels[row, block, place % size])
            values[row, place] = (level - int(blocks.zeros[row, block])) * float(blocks.scales[row, block])
    return values


def plain(values, size=32):
    """Round to nearest over the whole range of each block."""
    blocks = values.reshape(-1, size).astype(np.float64)
    low, high = np.minimum(blocks.min(1, keepdims=True), 0), np.maximum(blocks.max(1, keepdims=True), 0)
    scale = (high - low) / 15
    zero = np.rint(-low / scale)
    return ((np.clip(np.rint(blocks / scale) + zero, 0, 15) - zero) * scale).reshape(values.shape)


def test_levels_by_hand():
    row = np.arange(-7, 9, dtype=np.float32)[None]  # sixteen levels, one a number
    found = round_blocks(row, group_size=16, symmetric=False)
    assert found.levels.tolist() == [[list(range(16))]]
    assert (found.scales.tolist(), found.zeros.tolist()) == ([[1.0]], [[7]])
    assert pack(found.levels)[0, 0].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_block_is_off_by_less_than_rounding_its_whole_range_is(symmetric):
    values = weights()
    error = np.square(dequantized(round_blocks(values, group_size=32, symmetric=symmetric)) - values)
    whole = np.abs(values).reshape(-1, 32).max(1, keepdims=True) / 7
    by_hand = (np.clip(np.rint(values.reshape(-1, 32) / whole), -7, 7) * whole).reshape(values.shape)
    reference = by_hand if symmetric else plain(values)
    each, before = error.reshape(-1, 32).sum(1), np.square(reference - values).reshape(-1, 32).sum(1)
    assert error.sum() < 0.97 * before.sum()
    if not symmetric:  # plain rounding is among the candidates
        assert (each <= before * (1 + 1e-5)).all()


def test_weights_on_the_plain_grid_stay_where_they_are():
    on_grid = plain(weights()).astype(np.float32)
    np.testing.assert_allclose(dequantized(round_blocks(on_grid, group_size=32, symmetric=False)), on_grid, atol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_zeros_stay_zero(symmetric):
    values = weights()
    values[3] = 0  # a padding row
    values[:, ::5] = 0  # pruned
    found = dequantized(round_blocks(values, group_size=32, symmetric=symmetric))
    assert (found[values == 0] == 0).all()
    assert np.isfinite(found).all()


def test_an_outlier_blurs_its_own_block_only():
    values = weights()
    clean = dequantized(round_blocks(values, group_size=32, symmetric=False))
    values[:, 40] = 1000
    spoilt = dequantized(round_blocks(values, group_size=32, symmetric=False))
    np.testing.assert_array_equal(spoilt[:, :32], clean[:, :32])
    np.testing.assert_array_equal(spoilt[:, 64:], clean[:, 64:])


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_row_that_no_block_divides_is_filled_up(symmetric):
    values = weights(width=40)
    found = round_blocks(values, group_size=32, symmetric=symmetric)
    assert found.levels.shape == (40, 2, 32)
    assert (dequantized(found)[:, 40:] == 0).all()
    assert np.abs(dequantized(found)[:, :40] - values).max() < 0.5
