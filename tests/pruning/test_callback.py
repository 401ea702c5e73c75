"""The masks of a run are right in every checkpoint, whatever trains it."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import CRITERIA, PruningCallback, PruningConfig
from hf_shrink.pruning.criteria import CALIBRATED
from tests.models import tiny_bert_classifier
from tests.pruning.training import masks_in, pruning_callbacks, revived, train, zero_share

IN_TRAINING = [name for name, method in CRITERIA.items() if method.facts["reads"] not in CALIBRATED]
STRUCTURES = {"unstructured": 0.7, "2:4": 0.5, "block:8x8": 0.5, "neurons": 0.5}
RAMP = {"start_step": 2, "end_step": 10, "pruning_frequency": 2}
CHECKPOINTS = (4, 8, 12)


def config(method="magnitude", structure="unstructured", **options):
    settings = {"final_sparsity": STRUCTURES[structure], **RAMP, **options}
    return PruningConfig(method=method, structure=structure, **settings)


@pytest.fixture(params=IN_TRAINING)
def method(request):
    return request.param


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_checkpoint_has_exactly_the_sparsity_of_its_step(tmp_path, method, structure):
    trainer = train(tmp_path, config(method, structure), gradient_accumulation_steps=4)
    pruner = pruning_callbacks(trainer)[0].pruner
    plain = tiny_bert_classifier().state_dict()
    for step in CHECKPOINTS:
        folder = tmp_path / f"checkpoint-{step}"
        weights, masks = load_file(folder / "model.safetensors"), masks_in(folder)
        assert weights.keys() == plain.keys()
        assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in plain.items()}
        assert revived(weights, masks) == 0
        assert all((weights[name][mask] != 0).all() for name, mask in masks.items())
        units = sum(scores.numel() for _, scores in pruner.structure.unit_scores(pruner.worth.score))
        target = pruner.ramp.sparsity(step)
        assert abs(zero_share(weights, masks) - target) <= 1 / units
        assert (step == 12) == (target == STRUCTURES[structure])


def test_the_last_checkpoint_is_what_the_run_ends_with(tmp_path, method):
    trainer = train(tmp_path, config(method))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-12").state_dict()
    ours = trainer.model.state_dict()
    assert saved.keys() == ours.keys()
    assert all(torch.equal(saved[name], ours[name]) for name in ours)


class GradientsAlone(PruningCallback):
    """What pruners of old do: mask the gradients, and leave the weights to the optimizer."""

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.pruner.step < 4:
            super().on_optimizer_step(args, state, control, **kwargs)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.pruner.step < 4:
            super().on_pre_optimizer_step(args, state, control, **kwargs)


def test_weights_that_the_optimizer_revives_would_be_seen(tmp_path):
    early = config(start_step=0, end_step=3)
    trainer = train(tmp_path, callbacks=[GradientsAlone(early)])
    masks = pruning_callbacks(trainer)[0].pruner.masks
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert revived(trainer.model.state_dict(), masks) > 0.9 * pruned


@pytest.mark.parametrize("options", [{"bf16": True}, {"max_grad_norm": 0.0}])
@pytest.mark.parametrize("name", ["magnitude", "movement"])
def test_masks_hold_under_other_ways_to_train(tmp_path, name, options):
    train(tmp_path, config(name), **options)
    for step in CHECKPOINTS:
        folder = tmp_path / f"checkpoint-{step}"
        assert revived(load_file(folder / "model.safetensors"), masks_in(folder)) == 0


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")  # its name in transformers 4
@pytest.mark.parametrize("name", ["magnitude", "movement"])
def test_masks_hold_under_gradient_checkpointing(tmp_path, name):
    model = tiny_bert_classifier()
    model.gradient_checkpointing_enable()
    train(tmp_path, config(name), model=model)
    folder = tmp_path / "checkpoint-12"
    assert model.is_gradient_checkpointing
    assert revived(load_file(folder / "model.safetensors"), masks_in(folder)) == 0


@pytest.mark.parametrize("name", ["magnitude", "movement", "taylor"])
def test_weights_in_bf16_keep_their_masks(tmp_path, name):
    train(tmp_path, config(name), model=tiny_bert_classifier().to(torch.bfloat16))
    folder = tmp_path / "checkpoint-12"
    weights, masks = load_file(folder / "model.safetensors"), masks_in(folder)
    assert next(iter(masks)) in weights
    assert all(weights[name].dtype == torch.bfloat16 for name in masks)
    assert revived(weights, masks) == 0
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert abs(pruned / total - 0.7) <= 1 / total


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw_torch_fused"])
def test_masks_hold_under_other_optimizers(tmp_path, optimizer):
    train(tmp_path, config(), optim=optimizer, optim_args="momentum=0.9" if optimizer == "sgd" else None)
    folder = tmp_path / "checkpoint-12"
    assert revived(load_file(folder / "model.safetensors"), masks_in(folder)) == 0


def test_the_optimizer_forgets_pruned_weights(tmp_path):
    trainer = train(tmp_path, config())
    pruner = pruning_callbacks(trainer)[0].pruner
    for name, parameter in pruner.structure.parameters.items():
        state = trainer.optimizer.state[parameter]
        assert (state["exp_avg"][~pruner.masks[name]] == 0).all()
        assert (state["exp_avg_sq"][~pruner.masks[name]] == 0).all()
        assert (state["exp_avg"][pruner.masks[name]] != 0).any()


def test_pruned_weights_stay_pruned_but_for_movement(tmp_path, method):
    trainer = train(tmp_path, config(method, schedule="constant", score_learning_rate=0.5))
    early, late = (masks_in(tmp_path / f"checkpoint-{step}") for step in (4, 8))
    came_back = sum(int((late[name] & ~early[name]).sum()) for name in early)
    lets_grow = pruning_callbacks(trainer)[0].pruner.worth.lets_grow
    assert lets_grow == (method == "movement")
    assert (came_back > 0) == lets_grow


def test_the_log_says_how_sparse_the_model_is(tmp_path):
    trainer = train(tmp_path, config())
    ramp = pruning_callbacks(trainer)[0].pruner.ramp
    logged = {entry["step"]: entry["sparsity"] for entry in trainer.state.log_history if "loss" in entry}
    assert logged.keys() == set(range(1, 13))
    assert logged[1] == 0
    assert logged[12] == pytest.approx(0.7, abs=1e-4)
    assert logged[6] == pytest.approx(ramp.sparsity(6), abs=1e-4)


def test_one_shot_magnitude_prunes_what_torch_prunes(tmp_path):
    from torch.nn.utils import prune

    ours = train(tmp_path, config(schedule="one_shot", start_step=0), max_steps=1, learning_rate=0.0).model
    other = tiny_bert_classifier()
    targets = [(m, "weight") for name, m in other.bert.encoder.named_modules() if isinstance(m, torch.nn.Linear)]
    targets.append((other.bert.pooler.dense, "weight"))
    prune.global_unstructured(targets, prune.L1Unstructured, amount=0.7)
    for module, name in targets:
        prune.remove(module, name)
    weights = ours.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in other.state_dict().items())


def test_best_checkpoint_has_the_final_sparsity(tmp_path):
    # Pruning harms, so that the best loss of all is an early one.
    settings = config("random", final_sparsity=0.9, end_step=8)
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "metric_for_best_model": "loss"}
    trainer = train(tmp_path, settings, load_best_model_at_end=True, learning_rate=1e-3, **options)
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    assert min(losses, key=losses.get) < 8
    assert trainer.state.best_global_step >= 8
    masks = pruning_callbacks(trainer)[0].pruner.masks
    assert zero_share(trainer.model.state_dict(), masks) == pytest.approx(0.9, abs=1e-3)


def test_a_run_cut_short_says_so(tmp_path, caplog):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 5

    import logging

    logging.getLogger("transformers").propagate = True
    logging.getLogger("hf_shrink").propagate = True
    with caplog.at_level("WARNING"):
        train(tmp_path, config(), callbacks=[Stop()])
    assert "Training stopped at step 5, before pruning's end at 10" in caplog.text


def test_two_structures_compose(tmp_path):
    first = config(structure="neurons", targets=["Linear"])
    second = config(structure="2:4")
    trainer = train(tmp_path, first, second)
    weights = trainer.model.state_dict()
    callbacks = pruning_callbacks(trainer)
    for number, callback in enumerate(callbacks):
        masks = masks_in(tmp_path / "checkpoint-12", number)
        assert masks.keys() == callback.pruner.masks.keys()
        assert revived(weights, masks) == 0
    logged = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert logged["sparsity_neurons"] == logged["sparsity_2:4"] == 0.5


@pytest.mark.parametrize(
    ("first", "second"),
    [(("magnitude", "unstructured"), ("random", "unstructured")), (("movement", "2:4"), ("magnitude", "neurons"))],
)
def test_callbacks_that_would_fight_are_refused(tmp_path, first, second):
    model = tiny_bert_classifier()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ShrinkError, match="`callbacks`"):
        train(tmp_path, config(*first, end_step=12), config(*second, end_step=12), model=model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_callbacks_on_different_weights_need_not_agree(tmp_path):
    first = config("movement", targets=["re:.*attention.*"])
    second = config("magnitude", targets=["re:.*intermediate.*"])
    trainer = train(tmp_path, first, second)
    for number in range(2):
        assert revived(trainer.model.state_dict(), masks_in(tmp_path / "checkpoint-12", number)) == 0


def test_frozen_weights_are_pruned_by_magnitude_alone(tmp_path):
    model = tiny_bert_classifier()
    model.bert.encoder.requires_grad_(False)
    trainer = train(tmp_path / "magnitude", config(), model=model)
    assert zero_share(trainer.model.state_dict(), masks_in(tmp_path / "magnitude" / "checkpoint-12")) > 0.69
    with pytest.raises(ShrinkError, match=r"`method`.*'movement'.*frozen"):
        train(tmp_path / "movement", config("movement"), model=model)


def test_trained_twice_it_begins_anew(tmp_path):
    trainer = train(tmp_path, config())
    trainer.train()
    pruner = pruning_callbacks(trainer)[0].pruner
    assert pruner.step == 12
    assert revived(trainer.model.state_dict(), pruner.masks) == 0


@pytest.mark.parametrize("sharding", [{"fsdp": "full_shard"}])
def test_sharded_weights_are_refused(tmp_path, sharding):
    from types import SimpleNamespace

    callback = PruningCallback(config())
    args = SimpleNamespace(deepspeed=None, **sharding)
    with pytest.raises(ShrinkError, match="`fsdp`"):
        callback.on_train_begin(args, None, None, model=tiny_bert_classifier(), optimizer=None)


def test_calibrated_methods_are_sent_to_prune():
    calibrated = [name for name in CRITERIA if name not in IN_TRAINING]
    for name in calibrated:
        with pytest.raises(ShrinkError, match="`method`.*calibration"):
            PruningCallback(config(name))
