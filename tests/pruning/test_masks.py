"""Zeros where a mask says so, to the bit, and nothing else touched."""

import math

import pytest
import torch

from hf_shrink.pruning.masks import zero_pruned


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_pruned_is_zero_to_the_bit_and_kept_is_as_it_was(dtype, transposed):
    tensor = torch.tensor([[1.5, -2.0, math.nan, -math.inf], [-0.0, 3.0, math.nan, math.inf]], dtype=dtype)
    mask = torch.tensor([[True, False, False, False], [False, True, True, True]])
    if transposed:  # as the gradient of a tied or transposed weight may lie
        tensor, mask = tensor.T, mask.T.contiguous()
    before = tensor.clone()
    zero_pruned(tensor, mask)
    assert torch.equal(tensor[mask].nan_to_num(7.0), before[mask].nan_to_num(7.0))
    assert (tensor[~mask] == 0).all()
    assert not tensor[~mask].signbit().any()


def test_a_parameter_that_trains_can_be_pruned():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    zero_pruned(weight, torch.eye(2, dtype=torch.bool))
    assert torch.equal(weight.detach(), torch.eye(2))
    weight.sum().backward()
    assert weight.grad is not None


def test_a_product_would_not_do():
    tensor, mask = torch.tensor([-1.0, math.nan]), torch.zeros(2, dtype=torch.bool)
    assert (tensor * mask)[0].signbit()
    assert (tensor * mask)[1].isnan()
