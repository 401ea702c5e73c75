"""`hf-shrink prune`: with training and without, what is cut out, what is said of zeros, and what is refused."""

import dataclasses
import json

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer, TrainingArguments
from typer.main import get_command

from hf_shrink.cli import prune_outcome, prune_stages
from hf_shrink.cli.distill_settings import DEFAULTS
from hf_shrink.cli.main import app
from hf_shrink.cli.prune_outcome import NOT_CUT
from hf_shrink.cli.prune_settings import CALIBRATION_SIZE, SEARCH_SIZE
from hf_shrink.distillation import DistillationTrainer
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import CRITERIA, PruningConfig, prune, sparsity_report
from hf_shrink.pruning.constraints import CONSTRAINTS
from hf_shrink.pruning.layouts import LAYOUTS
from hf_shrink.pruning.schedule import SCHEDULES
from hf_shrink.pruning.search import SEARCHED
from hf_shrink.pruning.sparsity import PLAIN_FILES
from tests.cli.distilling import report, save_rows, save_teacher, used
from tests.cli.test_distill import TASK_ROWS
from tests.cli.test_main import run as run_in_process
from tests.distillation.tasks import TEXTS

ONCE = ("--train", "--set", "max_steps=4")


def zeros(folder, **patterns):
    return sparsity_report(folder, **patterns).prunable


def weights(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).state_dict()


# ---------------------------------------------------------------------- without training
@pytest.mark.parametrize("method", ["magnitude", "random", "wanda", "sparsegpt", "taylor", "fisher"])
def test_without_training_the_exact_share_is_zero_and_stock_code_loads_it(pruned, run, tmp_path, teacher, method):
    pruned("--method", method, "--sparsity", 0.37)
    assert not run.trainers
    count = zeros(tmp_path / "out")
    assert count.zeros == round(0.37 * count.total)
    assert weights(tmp_path / "out").keys() == weights(teacher).keys()
    assert used(tmp_path / "out")["name"] == method
    assert used(tmp_path / "out")["options"]["sparsity"] == 0.37


def test_the_command_prunes_as_the_function_does(pruned, tmp_path, teacher, rows):
    pruned("--method", "wanda", "--sparsity", 0.5, "--calibration-size", 3, "--seed", 7, "--targets", "re:.*dense")
    settings = {"method": "wanda", "sparsity": 0.5, "calibration_size": 3, "seed": 7, "targets": ["re:.*dense"]}
    expected = prune(str(teacher), calibration_dataset=str(rows), split="train", **settings).state_dict()
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pattern_needs_no_share(pruned, tmp_path):
    pruned("--structure", "2:4")
    assert sparsity_report(tmp_path / "out").pattern == "2:4"
    assert used(tmp_path / "out")["options"]["sparsity"] == 0.5


def test_rows_to_train_on_are_not_asked_for_where_none_are_read(run, tmp_path, teacher):
    rows = save_rows(tmp_path / "rows")
    (rows / "train.parquet").unlink()
    run("prune", "--model", teacher, "--dataset", rows, "--output-dir", tmp_path / "out", "--sparsity", 0.5)
    assert report(tmp_path / "out")["rows"] == len(TEXTS)


# ---------------------------------------------------------------------- with training
@pytest.mark.parametrize("method", ["magnitude", "movement", "fisher"])
def test_the_trained_model_moves_and_keeps_the_exact_zeros(pruned, run, tmp_path, teacher, method):
    pruned(*ONCE, "--method", method, "--sparsity", 0.6, "--pruning-frequency", 1, "--learning-rate", 0.01)
    assert type(run.last).__mro__[1] is Trainer
    count = zeros(tmp_path / "out")
    assert count.zeros == round(0.6 * count.total)
    assert not torch.equal(weights(tmp_path / "out")["classifier.weight"], weights(teacher)["classifier.weight"])
    assert used(tmp_path / "out")["options"]["learning_rate"] == 0.01


def test_every_setting_reaches_the_callback_and_the_trainer(pruned, run, tmp_path):
    pruning = {
        "initial_sparsity": 0.1,
        "schedule": "multi_step",
        "start_step": 2.0,
        "end_step": 4.0,
        "pruning_frequency": 2,
        "milestones": [0.5, 1.0],
        "score_learning_rate": 0.5,
    }
    training = {"num_train_epochs": 5.0, "learning_rate": 1e-3, "per_device_train_batch_size": 4, "seed": 3}
    (tmp_path / "c.yaml").write_text(json.dumps({**pruning, **training, "ignore": ["re:.*query"], "train": True}))
    pruned("--config", tmp_path / "c.yaml", "--sparsity", 0.3, "--set", "warmup_steps=1", "--scope", "local")
    (config,) = [c.config for c in run.last.callback_handler.callbacks if hasattr(c, "pruner")]
    shares = {"final_sparsity": 0.3, "scope": "local", "ignore": ["re:.*query"], "seed": 3}
    assert config == PruningConfig(**pruning, **shares)
    assert {name: getattr(run.last.args, name) for name in training} == training
    assert run.last.args.warmup_steps == 1
    assert run.last.state.global_step == 10
    assert zeros(tmp_path / "out", ignore=["re:.*query"]).share == pytest.approx(0.3, abs=1e-4)


def test_every_field_of_the_config_is_an_option():
    options = {option.name for option in get_command(app).commands["prune"].params}
    fields = {field.name for field in dataclasses.fields(PruningConfig)} - {"final_sparsity"} | {"sparsity"}
    assert fields <= options


def test_a_teacher_is_heard_with_its_preset(pruned, run, tmp_path, teacher):
    pruned(*ONCE, "--teacher", teacher, "--sparsity", 0.5)
    assert isinstance(run.last, DistillationTrainer)
    assert run.log["hidden_loss"] > 0
    for name, value in PRESETS["classification"].items():
        assert getattr(run.last.args, name) == value
    count = zeros(tmp_path / "out")
    assert count.zeros == round(0.5 * count.total)
    methods = report(tmp_path / "out")["provenance"]["methods"]
    assert [method["name"] for method in methods] == ["forward_kl", "magnitude"]
    assert methods[0]["options"]["preset"] == "classification"


def test_labels_are_numbered_as_the_model_does(run, tmp_path):
    names = {0: "c", 1: "a", 2: "b"}
    save_teacher(tmp_path / "model", id2label=names, label2id={name: i for i, name in names.items()})
    labels = [0, 1, 2, 0, 1, 2, 2, 1]
    save_rows(tmp_path / "rows", text=TEXTS, label=[names[i] for i in labels])
    settings = ("--output-dir", tmp_path / "out", *ONCE)
    run("prune", "--model", tmp_path / "model", "--dataset", tmp_path / "rows", *settings)
    assert list(run.last.train_dataset["labels"]) == labels


@pytest.mark.parametrize("task", TASK_ROWS)
def test_every_task_that_can_be_compared_is_pruned_while_it_trains(run, tmp_path, task):
    model, rows = save_teacher(tmp_path / "model", task), save_rows(tmp_path / "rows", **TASK_ROWS[task])
    settings = ("--output-dir", tmp_path / "out", "--sparsity", 0.5, *ONCE)
    run("prune", "--model", model, "--dataset", rows, *settings)
    found = report(tmp_path / "out")
    assert found["task"] == task
    assert all(entry["value"] is not None for entry in found["entries"])
    assert run.last.state.global_step == 4
    assert run.log["loss"] > 0
    count = zeros(tmp_path / "out")
    assert count.zeros == round(0.5 * count.total)


# ---------------------------------------------------------------------- what is cut out, and what is said
@pytest.mark.parametrize("mode", [(), ONCE])
def test_neurons_are_cut_out_of_every_layer(pruned, tmp_path, teacher, mode):
    said = pruned("--structure", "neurons", "--sparsity", 0.5, *mode)
    before, after = (AutoModelForSequenceClassification.from_pretrained(f) for f in (teacher, tmp_path / "out"))
    assert (before.config.intermediate_size, after.config.intermediate_size) == (64, 32)
    assert after.num_parameters() < before.num_parameters()
    assert "`intermediate_size` from 64 to 32 in every layer. Of what is left, 0.0 % are zero." in said
    assert PLAIN_FILES not in said
    original, shrunk = report(tmp_path / "out")["entries"]
    assert shrunk["size_bytes"] < original["size_bytes"]
    assert shrunk["macs"] < original["macs"]
    assert used(tmp_path / "out")["options"]["scope"] == "local"


@pytest.mark.parametrize("mode", [(), ONCE])
def test_the_cut_model_answers_as_the_masked_one(pruned, tmp_path, monkeypatch, mode):
    pruned("--structure", "neurons", "--sparsity", 0.5, *mode)
    monkeypatch.setattr(prune_outcome, "compact", lambda model: model)
    pruned("--structure", "neurons", "--sparsity", 0.5, "--output-dir", tmp_path / "masked", *mode)
    cut, masked = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name) for name in ("out", "masked"))
    assert masked.config.intermediate_size == 64
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    torch.testing.assert_close(cut(ids).logits, masked(ids).logits)


def test_heads_and_neurons_are_cut_where_the_config_can_say_so(run, tmp_path):
    model = save_teacher(tmp_path / "model", "causal_lm")
    rows = save_rows(tmp_path / "rows", **TASK_ROWS["causal_lm"])
    settings = ("--output-dir", tmp_path / "out", "--structure", "heads,neurons", "--sparsity", 0.5)
    for mode in ((), ONCE):
        run("prune", "--model", model, "--dataset", rows, *settings, *mode, "--output-dir", tmp_path / f"{mode}")
        config = AutoModelForCausalLM.from_pretrained(tmp_path / f"{mode}").config
        assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 1, 32)


def test_what_cannot_be_cut_keeps_its_zeros_and_says_so(pruned, tmp_path):
    first_layer = ("--targets", r"re:.*layer\.0\.(intermediate|output)")
    said = pruned("--structure", "neurons", "--sparsity", 0.5, *first_layer)
    assert NOT_CUT in said
    assert PLAIN_FILES in said
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.intermediate_size == 64
    assert zeros(tmp_path / "out").zeros == 32 * 32 * 2


@pytest.mark.parametrize("mode", [(), ONCE])
@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_single_zeros_claim_no_bytes_and_no_time(pruned, tmp_path, structure, mode):
    said = pruned("--structure", structure, "--sparsity", 0.5, *mode)
    assert PLAIN_FILES in said
    assert "50.0 % of the weights that pruning covers are zero." in said
    assert PLAIN_FILES in (tmp_path / "out" / "README.md").read_text()
    original, shrunk = report(tmp_path / "out")["entries"]
    assert shrunk["size_bytes"] == pytest.approx(original["size_bytes"], abs=100)  # the tags in the metadata
    assert (shrunk["parameters"], shrunk["macs"]) == (original["parameters"], original["macs"])


def test_the_card_bears_the_method_and_what_was_trained_on(pruned, tmp_path):
    pruned("--method", "wanda", "--sparsity", 0.5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "made by pruning" in card
    assert "**Pruning** (`wanda`, [arXiv:2306.11695]" in card
    assert "Training data" not in card
    assert "- pruning\n" in card


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "`sparsity` must be given"),
        (("--sparsity", "1.5"), "`sparsity` must be in"),
        (("--sparsity", "1.5", "--train"), "`sparsity` must be in"),
        (("--sparsity", "nan", "--train"), "`sparsity` must be in"),
        (("--sparsity", "0.7", "--structure", "2:4"), "`sparsity` must be at most 0.5"),
        (("--sparsity", "0.5", "--structure", "neuron"), "`structure` must be one of"),
        (("--sparsity", "0.5", "--structure", "124"), "YAML reads 2:4 as a number"),
        (("--sparsity", "0.5", "--method", "magnitud"), "Did you mean 'magnitude'"),
        (("--sparsity", "0.5", "--method", "movement"), "needs no training.*Add --train"),
        (("--method", "wanda", "--train"), "needs no calibration rows with --train"),
        (("--sparsity", "0.5", "--scope", "all"), "`scope` must be one of"),
        (("--scope", "rows", "--train"), "`scope` must be one of"),
        (("--sparsity", "0.5", "--max-module-sparsity", "0.4"), "`max_module_sparsity` must be"),
        (("--sparsity", "0.5", "--schedule", "linear"), "`schedule` must be left out.*Add --train"),
        (("--sparsity", "0.5", "--start-step", "0"), "`start_step` must be left out.*Add --train"),
        (("--sparsity", "0.5", "--learning-rate", "0"), "`learning_rate` must be left out.*Add --train"),
        (("--sparsity", "0.5", "--bf16"), "`bf16` must be left out.*Add --train"),
        (("--sparsity", "0.5", "--teacher", "x"), "`teacher` must be left out.*Add --train"),
        (("--train", "--calibration-size", "8"), "`calibration_size` must be left out with --train"),
        (("--train", "--preset", "none"), "`preset` must be left out without a teacher"),
        (("--train", "--start-step", "0.9", "--end-step", "0.5"), "`end_step` must be after"),
        (("--train", "--set", "alpha=1"), "`--set` must name a training argument, got 'alpha'.*need --teacher"),
        (("--train", "--set", "alfa"), "`--set` must be NAME=VALUE"),
        (("--train", "--teacher", "x", "--set", "alpha=2"), "`alpha` must be in"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(run, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(prune_stages, "load_rows", None)
    monkeypatch.setattr(prune_stages, "load_model", None)
    with pytest.raises(ShrinkError, match=message):
        run("prune", "--model", "m", "--dataset", "d", "--output-dir", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--metric", "perplexity"), "`metric` must fit the task"),
        (("--targets", "Conv2d"), "`targets` must match linear maps"),
        (("--structure", "heads"), "`structure` must leave a model that stock transformers loads smaller"),
        (("--structure", "neurons", "--targets", "re:.*query"), "`targets`"),
    ],
)
@pytest.mark.parametrize("mode", [(), ONCE])
def test_what_does_not_fit_the_model_is_refused_before_rows_are_read(pruned, run, monkeypatch, more, message, mode):
    monkeypatch.setattr(prune_stages, "tokenize_rows", None)
    monkeypatch.setattr(prune_stages, "prune", None)
    with pytest.raises(ShrinkError, match=message):
        pruned("--sparsity", 0.5, *mode, *more)
    assert not run.trainers


def test_a_run_too_short_for_its_schedule_is_refused(pruned, tmp_path):
    with pytest.raises(ShrinkError, match="`end_step` must be at most 4"):
        pruned(*ONCE, "--start-step", 2, "--end-step", 500)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_rows_without_labels_are_refused_before_training(run, tmp_path, teacher):
    ids = {"input_ids": [[2, 5, 3]] * 4, "attention_mask": [[1, 1, 1]] * 4}
    (tmp_path / "rows").mkdir()
    Dataset.from_dict(ids).to_parquet(tmp_path / "rows" / "train.parquet")
    Dataset.from_dict({**ids, "labels": [0, 1, 2, 0]}).to_parquet(tmp_path / "rows" / "test.parquet")
    settings = ("--output-dir", tmp_path / "out", *ONCE)
    with pytest.raises(ShrinkError, match="label"):
        run("prune", "--model", teacher, "--dataset", tmp_path / "rows", *settings)
    assert not run.trainers


@pytest.mark.parametrize("task", ["question_answering", "feature_extraction"])
def test_a_task_that_cannot_be_compared_is_refused_before_training(run, tmp_path, rows, task):
    model = save_teacher(tmp_path / "model", task)
    with pytest.raises(ShrinkError, match=f"`model` must be for a task that can be compared.*{task}"):
        run("prune", "--model", model, "--dataset", rows, "--output-dir", tmp_path / "out", *ONCE)
    assert not run.trainers


def test_the_exit_code_and_the_line_of_a_refusal(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    needed = ("prune", "--model", "m", "--dataset", "d", "--output-dir", "out")
    done = run_in_process(*needed, "--sparsity", "0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert "Error: `output_dir` must be new or empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"
    assert run_in_process(*needed, "--sparsitty", "0.5", cwd=tmp_path).returncode == 2


# ---------------------------------------------------------------------- help
def test_the_help_says_the_defaults():
    options = {option.name: option for option in get_command(app).commands["prune"].params}
    training = {field.name: field.default for field in dataclasses.fields(TrainingArguments)} | DEFAULTS
    names = ["num_train_epochs", "learning_rate", "per_device_train_batch_size"]
    expected = {name: training[name] for name in names}
    config = PruningConfig()
    lists = {"targets": config.targets[0], "ignore": config.ignore[0]}
    schedule = ("initial_sparsity", "schedule", "start_step", "end_step", "pruning_frequency", "milestones")
    expected |= lists | {name: getattr(config, name) for name in (*schedule, "score_learning_rate")}
    expected |= {
        "max_module_sparsity": config.max_module_sparsity,
        "method": f"{config.method}, with --constraint fisher",
        "structure": f"{config.structure}, with --constraint all that a stock model can lose",
        "calibration_size": f"{CALIBRATION_SIZE}, with --constraint {SEARCH_SIZE}",
    }
    for name, value in expected.items():
        assert options[name].default is None
        assert options[name].help.endswith(f"default: {value}."), name


def test_the_help_names_all_there_is():
    options = {option.name: option.help for option in get_command(app).commands["prune"].params}
    assert all(name in options["method"] for name in CRITERIA)
    assert all(name in options["schedule"] for name in SCHEDULES)
    assert all(name in options["constraint"] for name in CONSTRAINTS)
    assert all(name in options["structure"] for name in SEARCHED)
    assert all(name in options["layout"] for name in LAYOUTS)
