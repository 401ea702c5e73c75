"""Taylor: what the loss changes by, to first order, if a weight goes."""

import torch
from torch import nn

from hf_shrink.pruning.criteria.taylor import taylor


def test_it_is_what_the_loss_changes_by_where_the_loss_is_linear():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))
    slope = torch.tensor([[0.3, 0.1, -4.0]], dtype=torch.float64)
    loss = (weight * slope).sum()
    loss.backward()
    scores = taylor(weight, weight.grad)
    for index in range(3):
        without = weight.detach().clone()
        without[0, index] = 0
        torch.testing.assert_close(scores[0, index].double(), ((without * slope).sum() - loss).abs().detach())


def test_a_large_weight_that_moves_nothing_goes_first():
    # Magnitude alone would keep it.
    scores = taylor(torch.tensor([[9.0, 0.1]]), torch.tensor([[0.0, 1.0]]))
    assert scores.argmin() == 0
