"""Masks against an optimizer, without a Trainer around."""

import pytest
import torch
from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.pruner import Pruner, clear_state
from tests.pruning.loop import toy, toy_rows, train_toy
from tests.pruning.training import revived

RAMP = {"start_step": 2, "end_step": 8, "pruning_frequency": 2}


def steps(model, pruner, optimizer, skips, *, run_length):
    """Train; where `skips` says so the optimizer does nothing, as after an overflow."""
    inputs, targets = toy_rows()
    for number, skipped in enumerate(skips, start=1):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        if skipped:
            next(model.parameters()).grad.fill_(float("nan"))
        pruner.before_step()
        if not skipped:
            optimizer.step()
        pruner.after_step(optimizer, skipped=skipped, rate=1.0, last=number == run_length)
        assert revived(dict(model.named_parameters()), pruner.masks) == 0


@pytest.mark.parametrize("method", ["magnitude", "movement", "taylor"])
def test_skipped_steps_do_not_advance_the_schedule(method):
    config = PruningConfig(method, final_sparsity=0.5, **RAMP)
    with_skips, without = toy(), toy()
    for model, skips in ((with_skips, [1, 0, 0, 1, 0, 0, 0, 1]), (without, [0] * 5)):
        pruner, optimizer = Pruner(model, config, 10), torch.optim.AdamW(model.parameters(), lr=1e-2)
        pruner.start()
        steps(model, pruner, optimizer, skips, run_length=10)
        assert pruner.step == 5
        assert pruner.sparsity == pytest.approx(pruner.ramp.sparsity(4), abs=2e-3)
    ours, plain = with_skips.state_dict(), without.state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_skipped_steps_leave_no_schedule_unfinished():
    # fp16 skips the first steps of nearly every run: with end_step=1.0 the final sparsity would never be there.
    config = PruningConfig("magnitude", final_sparsity=0.5)
    model = toy()
    pruner, optimizer = Pruner(model, config, 6), torch.optim.AdamW(model.parameters(), lr=1e-2)
    pruner.start()
    steps(model, pruner, optimizer, [1, 1, 0, 0, 0, 0], run_length=6)
    assert pruner.sparsity == 0.5


def test_without_clearing_momentum_would_move_pruned_weights():
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    mask = torch.zeros_like(model.weight, dtype=torch.bool)
    model.weight.data.zero_()
    model.weight.grad.zero_()
    optimizer.step()
    assert (model.weight != 0).all()
    model.weight.data.zero_()
    clear_state(optimizer, {"weight": model.weight}, {"weight": mask})
    optimizer.step()
    assert (model.weight == 0).all()


def test_local_scope_takes_the_same_share_of_each():
    _, pruner, _ = train_toy(PruningConfig("magnitude", final_sparsity=0.5, scope="local", **RAMP), 10)
    assert all(int((~mask).sum()) == mask.numel() // 2 for mask in pruner.masks.values())
    _, pruner, _ = train_toy(PruningConfig("magnitude", final_sparsity=0.5, scope="global", **RAMP), 10)
    assert any(int((~mask).sum()) != mask.numel() // 2 for mask in pruner.masks.values())


def test_no_module_loses_more_than_it_may():
    config = PruningConfig("magnitude", final_sparsity=0.5, max_module_sparsity=0.52, **RAMP)
    _, pruner, _ = train_toy(config, 10)
    assert pruner.sparsity == 0.5
    assert all((~mask).float().mean() <= 0.52 for mask in pruner.masks.values())


def test_a_limit_that_cannot_be_held_is_refused_before_the_run():
    config = PruningConfig("magnitude", "block:8x8", final_sparsity=0.5, max_module_sparsity=0.5)
    model = nn.Sequential(nn.Linear(24, 8), nn.Linear(8, 24))  # three blocks each: one may go of each, three are to
    with pytest.raises(ShrinkError, match="`max_module_sparsity`"):
        Pruner(model, config, 10)


def test_weights_that_are_no_numbers_are_refused():
    model = toy()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    pruner = Pruner(model, PruningConfig("magnitude", schedule="one_shot"), 10)
    with pytest.raises(ShrinkError, match="NaN"):
        pruner.start()


def test_digests_tell_masks_apart():
    config = PruningConfig("random", final_sparsity=0.5, schedule="one_shot")
    digests = []
    for seed in (0, 0, 1):
        config.seed = seed
        pruner = Pruner(toy(), config, 4)
        pruner.start()
        digests.append(pruner.digest())
    assert digests[0] == digests[1] != digests[2]
