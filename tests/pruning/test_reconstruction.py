"""What stays makes up for what goes."""

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.reconstruction import reconstruct

KEPT = torch.tensor([True, False, True, True, False, True, True, False])


def correlated(seed=0):
    """Inputs (N, I) that say much of one another, and weights (O, I)."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(200, 4, generator=generator) @ torch.randn(4, 8, generator=generator)
    inputs = few + 0.3 * torch.randn(200, 8, generator=generator)
    return inputs, torch.randn(5, 8, generator=generator)


def error(inputs, weight, other):
    return (inputs.double() @ (weight - other).double().T).square().sum().item()


def test_with_hardly_a_ridge_it_is_the_least_squares_solution():
    inputs, weight = (tensor.double() for tensor in correlated())
    found = reconstruct(weight, inputs.T @ inputs, KEPT, ridge=1e-10)
    expected = torch.linalg.lstsq(inputs[:, KEPT], inputs @ weight.T).solution.T
    torch.testing.assert_close(found[:, KEPT], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_outputs_change_less_than_by_slicing(seed):
    inputs, weight = correlated(seed)
    mended = reconstruct(weight, inputs.T @ inputs, KEPT)
    assert error(inputs, weight, mended) < 0.9 * error(inputs, weight, weight * KEPT)
    assert (mended[:, ~KEPT] == 0).all()
    assert (mended[:, KEPT] != 0).all()


def test_inputs_that_say_nothing_of_one_another_are_sliced():
    _, weight = correlated()
    torch.testing.assert_close(reconstruct(weight, torch.arange(1.0, 9).diag(), KEPT), weight * KEPT)
    torch.testing.assert_close(reconstruct(weight, torch.zeros(8, 8), KEPT), weight * KEPT)


def test_one_of_two_equal_inputs_takes_over_by_hand():
    # Mean square of an input 2 a row, ridge 0.3 of it: 2 m = 2 w - 0.6 m.
    found = reconstruct(torch.tensor([[3.0, 1.3]]), torch.full((2, 2), 2.0), torch.tensor([True, False]))
    torch.testing.assert_close(found, torch.tensor([[4.0, 0.0]]))


def test_a_large_ridge_moves_nothing_and_less_of_it_more():
    inputs, weight = correlated()
    errors = [error(inputs, weight, reconstruct(weight, inputs.T @ inputs, KEPT, ridge)) for ridge in (1e6, 1, 0.01)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(error(inputs, weight, weight * KEPT), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_type_stays(dtype):
    inputs, weight = correlated()
    given = weight.to(dtype)
    before = given.clone()
    found = reconstruct(given, inputs.T @ inputs, KEPT)
    assert found.dtype == dtype
    assert torch.equal(given, before)
    torch.testing.assert_close(found.float(), reconstruct(weight, inputs.T @ inputs, KEPT), rtol=0.02, atol=0.02)
    assert (found[:, ~KEPT] == 0).all()


def test_where_all_stays_nothing_moves():
    inputs, weight = correlated()
    assert torch.equal(reconstruct(weight, inputs.T @ inputs, torch.ones(8, dtype=torch.bool)), weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_refused(value):
    products = torch.eye(8)
    products[3, 3] = value
    with pytest.raises(ShrinkError, match="finite numbers on the calibration rows"):
        reconstruct(torch.ones(5, 8), products, KEPT)
