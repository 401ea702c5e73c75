"""Fisher: what the loss of a likelihood rises by if a weight goes, by the diagonal of its information."""

import torch

from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.criteria.fisher import fisher
from tests.pruning.loop import train_toy


def test_value_by_hand():
    scores = fisher(torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 4.0]]))
    assert scores.tolist() == [[0.5, 8.0]]


def test_squares_are_averaged_and_not_the_gradients():
    # At the end of training gradients of opposite signs would cancel, and every weight would seem worthless.
    config = PruningConfig("fisher", final_sparsity=0.5, start_step=3, end_step=4)
    from hf_shrink.pruning.worth import GradientWorth

    parameter = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
    worth = GradientWorth("fisher", {"w": parameter})
    for gradient in ([[1.0, 0.1]], [[-1.0, 0.1]]):
        parameter.grad = torch.tensor(gradient)
        worth.before_step({})
        worth.after_step({}, 1.0)
    assert worth.score("w").tolist()[0][0] == 0.5
    assert worth.score("w").argmin() == 1
    assert train_toy(config, 6)[1].sparsity > 0.49
