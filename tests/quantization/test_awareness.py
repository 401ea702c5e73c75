"""Training for quantized numbers: what it is worth, what it leaves, and what could go wrong without a word."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import PruningCallback, PruningConfig
from hf_shrink.quantization import QuantizationAwareCallback
from hf_shrink.quantization.fake_quantization import find_modules, put_on_grid
from hf_shrink.quantization.start_weights import FILE
from hf_shrink.quantization.weight_grid import GRIDS
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.quantization.learning import CLASSES, callback, learned, loss_of, make_trainer, rows, train

pytest.importorskip("torchao")
WITH_ROWS = {"eval_rows": rows(48), "eval_strategy": "steps", "eval_steps": 4}
DISTILLATION = {"trainer_class": DistillationTrainer, "kind": DistillationTrainingArguments}
SHORT = {"save_strategy": "no", "max_steps": 60, "learning_rate": 1e-3, "weight_decay": 0.0}
DENSE = "bert.encoder.layer.0.output.dense"


def on_grid(model, method="int2"):
    """The weights of a model, rounded after training."""
    put_on_grid(find_modules(model, GRIDS[method]))
    return model


def assert_equal_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---------------------------------------------------------------------- what it is worth
def test_it_beats_quantization_after_training(tmp_path):
    everything = rows()
    trainer = train(
        tmp_path, QuantizationAwareCallback("int2"), model=learned(), **{**WITH_ROWS, "eval_rows": everything}, **SHORT
    )
    report = callback(trainer).report
    ours, after = loss_of(trainer.model, everything), loss_of(on_grid(learned()), everything)
    assert report["kept"] == "trained"
    assert report["loss"] == pytest.approx(ours, abs=1e-4)  # what was promised in training is what there is
    assert report["post_training_loss"] == pytest.approx(after, abs=1e-4)
    as_long_in_float = train(tmp_path, model=learned(), **SHORT).model
    assert ours < 0.5 * min(after, loss_of(on_grid(as_long_in_float), everything))
    entry = next(entry for entry in trainer.state.log_history if "quantized_loss" in entry)
    assert entry["quantized_loss"] == report["loss"]


@pytest.mark.parametrize("method", ["int8", "int2"])
def test_the_saved_model_is_a_plain_one_on_the_grid(tmp_path, method):
    trainer = train(tmp_path, QuantizationAwareCallback(method, embeddings="int8"), save_strategy="no")
    trainer.save_model(tmp_path / "saved")
    modules = find_modules(trainer.model, GRIDS[method], (), GRIDS["int8"])
    assert {type(module) for module, _ in modules.values()} == {torch.nn.Linear, torch.nn.Embedding}
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    for name, (_, grid) in modules.items():
        weight = saved[f"{name}.weight"]
        torch.testing.assert_close(grid.nearest(weight), weight, atol=1e-7, rtol=1e-6)
    head = saved["classifier.weight"]
    assert not torch.allclose(GRIDS["int4"].nearest(head), head)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    torch.testing.assert_close(stock(ids).logits, trainer.model.eval()(ids).logits, atol=1e-6, rtol=0)
    assert "quantization-aware-training" in trainer.model.model_tags


def test_where_training_loses_the_model_is_what_it_was(tmp_path, caplog):
    with caplog.at_level("WARNING", "hf_shrink.quantization.awareness"):
        trainer = train(
            tmp_path, QuantizationAwareCallback("int4"), model=learned(), **WITH_ROWS, learning_rate=1.0, max_steps=4
        )
    report = callback(trainer).report
    assert report["kept"] == "start"
    assert not report["loss"] <= report["post_training_loss"]
    assert "lost against" in caplog.text
    assert_equal_weights(trainer.model, on_grid(learned(), "int4"))


def test_without_rows_to_evaluate_on_it_says_so_and_keeps_what_it_trained(tmp_path, caplog):
    with caplog.at_level("WARNING", "hf_shrink.quantization.awareness"):
        trainer = train(tmp_path, QuantizationAwareCallback("int4"), max_steps=2)
    assert caplog.text.count("is not known") == 1
    report = callback(trainer).report
    assert (report["loss"], report["post_training_loss"], report["kept"]) == (None, None, "trained")


def test_rows_that_no_step_was_evaluated_on_yet_are_at_the_end(tmp_path):
    trainer = train(tmp_path, QuantizationAwareCallback("int4"), max_steps=2, **{**WITH_ROWS, "eval_delay": 50})
    assert callback(trainer).report["loss"] == pytest.approx(loss_of(trainer.model, rows(48)), abs=1e-4)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [([1.0, 2.0], "trained"), ([2.0, 1.0], "start"), ([float("nan"), 1.0], "start"), ([1.0, float("nan")], "trained")],
)
def test_what_the_user_evaluates_decides(tmp_path, answers, kept):
    waiting = iter(answers)
    trainer = train(tmp_path, QuantizationAwareCallback("int4", evaluate=lambda: next(waiting)), max_steps=2)
    assert callback(trainer).report["kept"] == kept
    assert next(waiting, None) is None


def test_the_trainers_own_evaluation_can_decide(tmp_path):
    trainers = []
    aware = QuantizationAwareCallback("int4", evaluate=lambda: trainers[0].evaluate()["eval_loss"])
    trainers.append(make_trainer(tmp_path, aware, model=learned(), eval_rows=rows(48), save_strategy="no"))
    trainers[0].train()
    best = min(aware.report["loss"], aware.report["post_training_loss"])
    assert best == pytest.approx(trainers[0].evaluate()["eval_loss"], abs=1e-5)


# ---------------------------------------------------------------------- what is trained
def test_each_weight_trains_and_what_is_ignored_is_not_rounded(tmp_path):
    model = learned()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen = {}

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model, optimizer, **kwargs):
            seen["optimizer"] = {id(p) for group in optimizer.param_groups for p in group["params"]}
            seen["model"] = {id(p) for p in model.parameters()}
            seen["rounds"] = {name for name, module in model.named_modules() if name.endswith("fake_quantizer")}

    trainer = train(
        tmp_path, QuantizationAwareCallback("int2", ignore=[DENSE]), Look(), model=model, max_steps=2, weight_decay=0.0
    )
    assert seen["optimizer"] == seen["model"] == {id(p) for p in trainer.model.parameters()}
    assert len(seen["rounds"]) == 2 * 6 + 1 - 1
    assert not {f"{DENSE}.weight_fake_quantizer", "classifier.weight_fake_quantizer"} & seen["rounds"]
    latent = load_file(trainer_checkpoint(tmp_path, 2))
    assert all(not torch.equal(latent[name], weight) for name, weight in before.items() if "key.bias" not in name)
    assert torch.equal(trainer.model.get_submodule(DENSE).weight, latent[f"{DENSE}.weight"])
    assert torch.equal(trainer.model.classifier.weight, latent["classifier.weight"])


def trainer_checkpoint(folder, step):
    return folder / f"checkpoint-{step}" / "model.safetensors"


def test_a_checkpoint_holds_the_weights_in_float_under_stock_names(tmp_path):
    model = tiny_bert_classifier(CLASSES, num_hidden_layers=2)
    names = set(model.state_dict())
    trainer = train(tmp_path, QuantizationAwareCallback("int2", embeddings="int4"), model=model)
    latent = load_file(trainer_checkpoint(tmp_path, 12))
    assert set(latent) == names
    weight = latent[f"{DENSE}.weight"]
    assert not torch.allclose(GRIDS["int2"].nearest(weight), weight, atol=1e-3)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-12")
    assert type(stock.get_submodule(DENSE)) is torch.nn.Linear
    put_on_grid(find_modules(stock, GRIDS["int2"], (), GRIDS["int4"]))
    assert_equal_weights(stock, trainer.model)  # the last checkpoint, rounded after training, is the result


def test_gradients_are_those_of_the_rounded_model_however_they_are_accumulated(tmp_path):
    found = []
    for size, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = train(
            tmp_path,
            QuantizationAwareCallback("int8"),
            model=learned(),
            **DISTILLATION,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            learning_rate=0.1,
            max_steps=1,
        )
        found.append(load_file(trainer_checkpoint(tmp_path, 1)))
        shutil.rmtree(tmp_path)
        assert trainer.state.global_step == 1
    start = learned().state_dict()
    for other in found[1:]:
        for name, weight in found[0].items():
            torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=0)
    assert not torch.allclose(found[0][f"{DENSE}.weight"], start[f"{DENSE}.weight"], atol=1e-4)


def test_gradient_checkpointing_and_bf16_change_nothing_but_rounding_errors(tmp_path):
    variants = {"plain": {}, "checkpointing": {"activation_checkpointing": True}, "bf16": {"bf16": True}}
    losses = {}
    for name, options in variants.items():
        trainer = train(tmp_path, QuantizationAwareCallback("int8"), model=learned(), max_steps=3, **options)
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert trainer.model.get_submodule(DENSE).weight.dtype == torch.float32
    assert losses["checkpointing"] == losses["plain"]
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.3, abs=0.02)


# ---------------------------------------------------------------------- when
def test_it_begins_when_it_is_told_to(tmp_path):
    def losses(*callbacks, **options):
        trainer = train(tmp_path, *callbacks, **options, max_steps=8)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    in_float = losses()
    assert losses(QuantizationAwareCallback("int2", start_step=4))[:4] == in_float[:4]
    late = losses(QuantizationAwareCallback("int2", start_step=0.5))
    assert late == losses(QuantizationAwareCallback("int2", start_step=4))
    assert all(abs(ours - float_loss) > 1e-4 for ours, float_loss in zip(late[4:], in_float[4:], strict=True))
    assert losses(QuantizationAwareCallback("int2"))[0] != in_float[0]


def test_no_checkpoint_that_was_evaluated_in_float_is_the_best_one(tmp_path):
    options = {**WITH_ROWS, "load_best_model_at_end": True, "learning_rate": 1e-4}
    trainer = train(tmp_path, QuantizationAwareCallback("int2", start_step=5), model=learned(), **options)
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert losses[4] < min(losses[8], losses[12])
    assert trainer.state.best_global_step in (8, 12)
    best = AutoModelForSequenceClassification.from_pretrained(trainer.state.best_model_checkpoint)
    if callback(trainer).report["kept"] == "trained":
        assert_equal_weights(trainer.model, on_grid(best))
    assert callback(trainer).report["loss"] == pytest.approx(min(losses[8], losses[12]), abs=1e-4)


# ---------------------------------------------------------------------- cut off and resumed
@pytest.mark.parametrize("method", [pytest.param("int8", marks=pytest.mark.slow), "int2"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, method):
    def run(folder, **options):
        aware = QuantizationAwareCallback(method, start_step=2)
        return train(tmp_path / folder, aware, **WITH_ROWS, gradient_accumulation_steps=2, **options)

    whole = run("whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "resumed" / "checkpoint-4")
    other = tiny_bert_classifier(CLASSES, num_hidden_layers=2, seed=5)  # what it is made of does not matter
    resumed = run("resumed", resume=tmp_path / "resumed" / "checkpoint-4", model=other)
    assert_equal_weights(whole.model, resumed.model)
    assert callback(whole).report == callback(resumed).report
    logs = [[(e["loss"], e["grad_norm"]) for e in t.state.log_history if "loss" in e] for t in (whole, resumed)]
    assert logs[0] == logs[1]


def test_what_the_start_was_is_taken_from_the_checkpoint_alone(tmp_path):
    train(tmp_path / "whole", QuantizationAwareCallback("int4"))
    train(tmp_path / "other", QuantizationAwareCallback("int4"), learning_rate=1e-3)
    middle = tmp_path / "whole" / "checkpoint-4"
    moved = tmp_path / "moved" / "here"
    shutil.copytree(middle, moved)
    with pytest.raises(ShrinkError, match=r"`resume_from_checkpoint`.*checkpoint=folder"):
        train(tmp_path / "resumed", QuantizationAwareCallback("int4"), resume=moved)
    shutil.copytree(tmp_path / "other" / "checkpoint-4", tmp_path / "resumed" / "checkpoint-4")  # of other weights
    with pytest.raises(ShrinkError, match="`resume_from_checkpoint`"):
        train(tmp_path / "resumed", QuantizationAwareCallback("int4"), resume=moved)
    with pytest.raises(ShrinkError, match="same callback"):
        train(tmp_path / "whole", QuantizationAwareCallback("int2"), resume=middle)
    start = load_file(moved / FILE)
    fresh = tiny_bert_classifier(CLASSES, num_hidden_layers=2)
    assert torch.equal(start[f"{DENSE}.weight"], fresh.get_submodule(DENSE).weight)
    aware = QuantizationAwareCallback("int4", checkpoint=moved)
    assert train(tmp_path / "resumed", aware, resume=moved).state.global_step == 12


def test_a_run_that_broke_off_leaves_no_trace_in_the_next(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    model, aware = tiny_bert_classifier(CLASSES, num_hidden_layers=2), QuantizationAwareCallback("int2")
    for again in (aware, QuantizationAwareCallback("int2")):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, aware, Stop(), model=model)
        model.save_pretrained(tmp_path / "broken")
        assert set(load_file(tmp_path / "broken" / "model.safetensors")) == set(model.state_dict())
        train(tmp_path, again, model=model, max_steps=2)
        assert type(model.get_submodule(DENSE)) is torch.nn.Linear
        assert not [name for name, _ in model.named_modules() if "quantizer" in name]


# ---------------------------------------------------------------------- together with others
def distil(folder, *callbacks, **options):
    with_teacher = {"teacher_model": learned(), "processing_class": tiny_tokenizer()}
    return train(folder, *callbacks, model=learned(), trainer_options=with_teacher, **DISTILLATION, **options)


def test_a_teacher_is_the_rescue_even_without_labels(tmp_path):
    trainers = []
    aware = QuantizationAwareCallback("int2", evaluate=lambda: trainers[0].evaluate()["eval_loss"])
    trainers.append(
        make_trainer(
            tmp_path,
            aware,
            model=learned(),
            train_rows=rows().remove_columns("labels"),
            eval_rows=rows().remove_columns("labels"),
            trainer_options={"teacher_model": learned(), "processing_class": tiny_tokenizer()},
            **DISTILLATION,
            **SHORT,
        )
    )
    trainers[0].train()
    assert aware.report["kept"] == "trained"
    assert aware.report["loss"] < 0.5 * aware.report["post_training_loss"]
    assert loss_of(trainers[0].model, rows()) < 0.5 * loss_of(on_grid(learned()), rows())


PRUNED = {
    "magnitude": PruningConfig("magnitude", final_sparsity=0.6, start_step=2, end_step=8, pruning_frequency=2),
    "2:4": PruningConfig("magnitude", "2:4", start_step=2, end_step=8, pruning_frequency=2),
    "neurons": PruningConfig(
        "magnitude", "neurons", final_sparsity=0.5, start_step=2, end_step=8, pruning_frequency=2
    ),
}


@pytest.mark.parametrize("case", ["magnitude", *(pytest.param(c, marks=pytest.mark.slow) for c in ("2:4", "neurons"))])
@pytest.mark.parametrize(("losses", "kept"), [([1.0, 2.0], "trained"), ([2.0, 1.0], "start")], ids=["wins", "loses"])
def test_what_is_pruned_stays_pruned_whichever_weights_are_kept(tmp_path, case, losses, kept):
    prune = PruningCallback(PRUNED[case])
    aware = QuantizationAwareCallback("int4", evaluate=iter(losses).__next__)  # the trained weights come first
    order = (prune, aware) if kept == "start" else (aware, prune)
    trainer = distil(tmp_path, *order, **WITH_ROWS)
    assert aware.report["kept"] == kept
    pruner = prune.pruner
    assert pruner.sparsity == pytest.approx(PRUNED[case].final_sparsity or 0.5, abs=0.01)
    for name, mask in pruner.masks.items():
        weight = trainer.model.get_parameter(name)
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != 0).any()
    rounded = GRIDS["int4"].nearest(trainer.model.get_submodule(DENSE).weight)
    torch.testing.assert_close(rounded, trainer.model.get_submodule(DENSE).weight, atol=1e-7, rtol=1e-6)


# ---------------------------------------------------------------------- what is refused
def test_two_callbacks_for_one_model_are_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`callbacks` must hold one"):
        train(tmp_path, QuantizationAwareCallback("int8"), QuantizationAwareCallback("int4"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "int5"}, "`method` must be one of"),
        ({"embeddings": "int5"}, "`embeddings` must be one of"),
        ({"group_size": 32}, "`group_size` must be at least 2, and left out for int8"),
        ({"method": "int4", "group_size": 1}, "`group_size` must be at least 2"),
        ({"ignore": "classifier"}, "`ignore` must be a list"),
        ({"start_step": -1}, "`start_step` must be"),
        ({"start_step": 1.0}, "`start_step` must be"),
        ({"start_step": float("nan")}, "`start_step` must be"),
    ],
)
def test_a_setting_out_of_range_is_refused_at_once(settings, message):
    with pytest.raises(ShrinkError, match=message):
        QuantizationAwareCallback(**settings)


def test_a_run_that_it_cannot_serve_is_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`start_step` must lie within"):
        train(tmp_path, QuantizationAwareCallback("int8", start_step=12))
    for name in ("fsdp", "deepspeed"):
        args = SimpleNamespace(**{"fsdp": "", "deepspeed": None, name: "full_shard"})
        with pytest.raises(ShrinkError, match=f"`{name}` must be off"):
            QuantizationAwareCallback().on_train_begin(args, None, None, model=None)
    with pytest.raises(ShrinkError, match="must be there when training begins"):
        QuantizationAwareCallback().on_train_end(None, None, None, model=copy.deepcopy(learned()))
