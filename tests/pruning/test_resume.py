"""A pruning run that was cut off and resumed is the run that was not, to the last bit."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.callback import file_name
from tests.pruning.training import pruning_callbacks, train

RAMP = {"start_step": 2, "end_step": 10, "pruning_frequency": 3}
RUNS = {
    "magnitude": [PruningConfig("magnitude", final_sparsity=0.7, **RAMP)],
    "movement": [PruningConfig("movement", final_sparsity=0.7, score_learning_rate=0.5, **RAMP)],
    "2:4": [PruningConfig("magnitude", "2:4", **RAMP)],
    "2:4 by movement": [PruningConfig("movement", "2:4", score_learning_rate=0.5, **RAMP)],
    "taylor": [PruningConfig("taylor", final_sparsity=0.7, **RAMP)],
    "neurons and 2:4": [
        PruningConfig("magnitude", "neurons", final_sparsity=0.5, **RAMP),
        PruningConfig("magnitude", "2:4", **RAMP),
    ],
}


def assert_equal_runs(one, other):
    weights, others = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for own, their in zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        assert all(torch.equal(torch.as_tensor(own[key]), torch.as_tensor(their[key])) for key in own)
    for own, their in zip(pruning_callbacks(one), pruning_callbacks(other), strict=True):
        ours, theirs = own.pruner.tensors(), their.pruner.tensors()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert own.pruner.digest() == their.pruner.digest()
    logs = [[(e["loss"], e["grad_norm"]) for e in t.state.log_history if "loss" in e] for t in (one, other)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("case", RUNS)
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, case, accumulation):
    options = {"gradient_accumulation_steps": accumulation}
    whole = train(tmp_path / "whole", *RUNS[case], **options)
    middle = tmp_path / "whole" / "checkpoint-4"  # between two choices, so that what was gathered counts
    resumed = train(tmp_path / "resumed", *RUNS[case], resume=middle, **options)
    assert_equal_runs(whole, resumed)
    late = train(tmp_path / "late", *RUNS[case], resume=tmp_path / "resumed" / "checkpoint-8", **options)
    assert_equal_runs(whole, late)


@pytest.mark.parametrize("case", ["movement", "neurons and 2:4"])
def test_it_makes_no_difference_whether_the_trainer_restores_callbacks(tmp_path, case):
    whole = train(tmp_path / "whole", *RUNS[case])
    middle = tmp_path / "whole" / "checkpoint-4"
    options = {"restore_callback_states_from_checkpoint": True}
    assert_equal_runs(whole, train(tmp_path / "restored", *RUNS[case], resume=middle, **options))


def test_a_trainer_that_trained_already_resumes_with_each_callbacks_own_masks(tmp_path):
    trainer = train(tmp_path / "whole", *RUNS["neurons and 2:4"])
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.model.state_dict().items())


def test_movement_would_differ_without_its_dense_weights(tmp_path):
    # What the model holds at a pruned weight is zero: scores and weights that began anew there would not be the same.
    train(tmp_path / "whole", *RUNS["movement"])
    state = load_file(tmp_path / "whole" / "checkpoint-4" / file_name(0))
    model = load_file(tmp_path / "whole" / "checkpoint-4" / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    pruned = ~state[f"mask.{name}"]
    assert (model[name][pruned] == 0).all()
    assert (state[f"worth.dense.{name}"][pruned] != 0).all()
    assert state[f"worth.score.{name}"].count_nonzero() > 0


def test_a_checkpoint_that_was_moved_is_found_where_the_user_says(tmp_path):
    whole = train(tmp_path / "whole", *RUNS["magnitude"])
    moved = tmp_path / "moved" / "here"
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", moved)
    shutil.copytree(tmp_path / "whole", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "whole")
    with pytest.raises(ShrinkError, match=r"`resume_from_checkpoint`.*checkpoint=folder"):
        train(tmp_path / "resumed", *RUNS["magnitude"], resume=moved)
    assert_equal_runs(whole, train(tmp_path / "resumed", *RUNS["magnitude"], resume=moved, checkpoint=moved))


def test_the_state_of_another_run_is_not_taken(tmp_path):
    train(tmp_path / "one", *RUNS["magnitude"])
    train(tmp_path / "other", *RUNS["magnitude"])
    mine = tmp_path / "one" / "checkpoint-4"
    shutil.copy(tmp_path / "other" / "checkpoint-4" / file_name(0), mine / file_name(0))
    with pytest.raises(ShrinkError, match="`resume_from_checkpoint`"):
        train(tmp_path / "resumed", *RUNS["magnitude"], resume=mine)


def test_masks_of_other_targets_are_refused(tmp_path):
    train(tmp_path / "whole", *RUNS["magnitude"])
    other = PruningConfig("magnitude", final_sparsity=0.7, targets=["re:.*attention.*"], **RAMP)
    with pytest.raises(ShrinkError, match=r"`resume_from_checkpoint`.*differs in"):
        train(tmp_path / "resumed", other, resume=tmp_path / "whole" / "checkpoint-4")
