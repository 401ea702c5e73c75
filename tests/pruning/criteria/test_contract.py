"""What every criterion does, the registered ones and those to come."""

import pytest
import torch

from hf_shrink.pruning import CRITERIA, PruningConfig
from hf_shrink.pruning.criteria import CALIBRATED
from tests.pruning.loop import train_toy

READS = {"weights", "noise", "gradients", "activations", "hessian", "scores"}


@pytest.fixture(params=list(CRITERIA))
def criterion(request):
    return CRITERIA[request.param]


def signal(reads, weight):
    if reads == "weights":
        return None
    generator = torch.Generator().manual_seed(2)
    if reads == "hessian":
        inputs = torch.randn(32, weight.shape[1], generator=generator)
        return inputs.T @ inputs
    shape = weight.shape[1:] if reads == "activations" else weight.shape
    return torch.rand(shape, generator=generator) + 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_finite_fp32_and_of_the_weights_shape(criterion, dtype):
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = weight.clone()
    scores = criterion.function(weight, signal(criterion.facts["reads"], weight))
    assert criterion.facts["reads"] in READS
    assert scores.dtype == torch.float32
    assert scores.shape == weight.shape
    assert scores.isfinite().all()
    assert not scores.requires_grad
    assert torch.equal(weight, before)


def test_it_is_documented(criterion):
    assert criterion.paper.startswith("arXiv:")
    assert criterion.summary.endswith(").")


def test_a_weight_of_zero_is_worth_least(criterion):
    if criterion.facts["reads"] in ("noise", "scores"):
        assert criterion.name in ("random", "movement", "soft_movement")  # by lot, and by its own score
        return
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    weight[2, 3] = 0
    scores = criterion.function(weight, signal(criterion.facts["reads"], weight))
    assert scores[2, 3] == 0
    assert scores.min() == 0


def test_it_beats_pruning_by_lot(criterion):
    if criterion.name == "random" or criterion.facts["reads"] in CALIBRATED:
        return  # the lot itself; and what needs calibration rows is held against it where they are given
    settings = {"final_sparsity": 0.8, "start_step": 40, "end_step": 160, "pruning_frequency": 5}
    _, pruner, loss = train_toy(PruningConfig(criterion.name, score_learning_rate=0.05, **settings), 240)
    losses = [train_toy(PruningConfig("random", seed=seed, **settings), 240)[2] for seed in range(3)]
    assert pruner.sparsity == pytest.approx(0.8, abs=2e-3)
    assert loss < min(losses)
