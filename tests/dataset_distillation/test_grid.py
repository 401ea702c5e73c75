import numpy as np
import pytest

from hf_shrink.dataset_distillation import grid as module
from hf_shrink.dataset_distillation.grid import STEPS, nearest, on_grid
from tests.dataset_distillation.selectors.rows import clumps, unit


@pytest.mark.parametrize("width", [1, 3, 384, 4096])
def test_products_are_whole_numbers_that_fp32_holds_in_any_order(width):
    rows = unit(np.random.default_rng(0).standard_normal((50, width)))
    rows[0] = unit(np.ones((1, width)))  # all alike: the sum of absolute products is the largest that there is
    grid = on_grid(rows)
    exact = grid.astype(np.int64) @ grid.astype(np.int64).T
    assert np.abs(grid).astype(np.int64).max() <= STEPS
    assert (np.abs(grid).astype(np.int64) @ np.abs(grid).astype(np.int64).T).max() < 2**24
    order = np.random.default_rng(1).permutation(width)
    assert np.array_equal(grid @ grid.T, exact)
    assert np.array_equal(np.ascontiguousarray(grid[:, order]) @ np.ascontiguousarray(grid[:, order]).T, exact)
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    assert np.abs(exact / STEPS**2 - cosines)[1:, 1:].max() < 1e-3


def test_longer_rows_are_scaled_down_together(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 16)
    rows = clumps(50)
    assert np.abs(on_grid(rows * np.float32(20)) - on_grid(rows)).max() <= 1


def test_the_nearest_centre_is_the_lower_of_two_that_are_equal(monkeypatch):
    rows = on_grid(clumps(200))
    centres = rows[[3, 7, 3, 11]]
    expected = (rows @ centres.T).argmax(1)
    for block in (1, 64, 2**22):
        monkeypatch.setattr(module, "BLOCK", block)
        found, products = nearest(rows, centres)
        assert np.array_equal(found, expected)
        assert np.array_equal(products, (rows @ centres.T).max(1))
    assert found[3] == 0
