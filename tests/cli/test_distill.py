"""`hf-shrink distill`: what was asked for, the preset, the transfer set, the cache, and every task."""

import dataclasses
import json

import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from typer.main import get_command

from hf_shrink.cli import distill_settings
from hf_shrink.cli.distill_settings import DEFAULTS, choose_preset
from hf_shrink.cli.main import app
from hf_shrink.distillation import DistillationTrainingArguments
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError
from tests.cli.distilling import LABELS, SINGLE, save_rows, save_teacher
from tests.distillation.tasks import TASK_CASES, TEXTS
from tests.models import tiny_bert_classifier

TAGS = [[i % 3 for i, _ in enumerate(text.split())] for text in TEXTS]
WORDS = [text.split() for text in TEXTS]
CLASSIFICATION = PRESETS["classification"]


@pytest.fixture
def distill(run, teacher, rows, tmp_path):
    """Run the command on the classifier, once."""

    def call(*more):
        return run("distill", "--teacher", teacher, "--dataset", rows, "--output-dir", tmp_path / "out", *more)

    return call


def used(folder):
    """What the report says of the method."""
    (method,) = json.loads((folder / "shrink_report.json").read_text())["provenance"]["methods"]
    return method


# ---------------------------------------------------------------------- preset and flags
def test_a_classifier_is_distilled_with_the_preset_and_the_card_says_its_values(distill, run, tmp_path):
    distill("--num-train-epochs", 1)
    for name, value in CLASSIFICATION.items():
        assert getattr(run.last.args, name) == value
        assert used(tmp_path / "out")["options"][name] == value
    assert run.log["hidden_loss"] > 0
    assert "`preset=classification`" in (tmp_path / "out" / "README.md").read_text()
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert student.config.num_hidden_layers == 2


def test_a_flag_goes_before_the_preset_even_where_it_says_the_default(distill, run, tmp_path, monkeypatch):
    default = DistillationTrainingArguments("out").alpha
    monkeypatch.setattr(distill_settings, "PRESETS", {"classification": {**CLASSIFICATION, "alpha": default + 0.4}})
    distill("--alpha", default, "--set", "hidden_weight=0", "--num-train-epochs", 1)
    assert run.last.args.alpha == default
    assert run.last.args.hidden_weight == 0
    assert run.last.args.disable_dropout == CLASSIFICATION["disable_dropout"]
    assert used(tmp_path / "out")["options"]["alpha"] == default
    assert "hidden_loss" not in run.log


@pytest.mark.parametrize("more", [("--preset", "none"), ("--set", "preset=none")])
def test_no_preset_leaves_the_defaults(distill, run, tmp_path, more):
    distill(*more, "--num-train-epochs", 1)
    defaults = DistillationTrainingArguments("out")
    for name in CLASSIFICATION:
        assert getattr(run.last.args, name) == getattr(defaults, name)
    assert "preset" not in used(tmp_path / "out")["options"]


def test_a_config_file_goes_before_the_preset_and_a_flag_before_it(distill, run, tmp_path):
    (tmp_path / "c.yaml").write_text("alpha: 0.25\ntemperature: 4.0\n")
    distill("--config", tmp_path / "c.yaml", "--temperature", 3, "--num-train-epochs", 1)
    assert (run.last.args.alpha, run.last.args.temperature) == (0.25, 3.0)


def test_the_preset_is_the_default_of_encoders_alone():
    assert choose_preset(None, tiny_bert_classifier(), SINGLE) == "classification"
    assert choose_preset(None, tiny_bert_classifier(), "multi_label_classification") is None
    assert choose_preset(None, TASK_CASES["causal_lm"].teacher(), SINGLE) is None
    with pytest.raises(ShrinkError, match="`preset` must be one of"):
        choose_preset("clasification", tiny_bert_classifier(), SINGLE)


def test_the_help_says_the_defaults():
    defaults = {f.name: f.default for f in dataclasses.fields(DistillationTrainingArguments)} | DEFAULTS
    options = [o for o in get_command(app).commands["distill"].params if "the preset's, or" in o.help]
    assert len(options) >= 6
    for option in options:
        assert option.default is None  # or it would go before the preset
        assert option.help.endswith(f"or {defaults[option.name]}.")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--alpha", "2"), "`alpha` must be in"),
        (("--set", "alfa=2"), "`--set` must name a training argument"),
        (("--preset", "clasification"), "`preset` must be one of"),
        (("--metric", "perplexity"), "`metric` must fit the task"),
        (("--transfer-split", "train"), "`transfer_split` must be a split of"),
    ],
)
def test_wrong_settings_are_refused_before_training(distill, run, more, message):
    with pytest.raises(ShrinkError, match=message):
        distill(*more)
    assert not run.trainers


def test_labels_are_numbered_as_the_teacher_does(run, tmp_path):
    names = {0: "c", 1: "a", 2: "b"}
    save_teacher(tmp_path / "teacher", id2label=names, label2id={name: i for i, name in names.items()})
    save_rows(tmp_path / "rows", text=TEXTS, label=[names[i] for i in LABELS])
    settings = ("--output-dir", tmp_path / "out", "--num-train-epochs", 1)
    run("distill", "--teacher", tmp_path / "teacher", "--dataset", tmp_path / "rows", *settings)
    assert list(run.last.train_dataset["labels"]) == LABELS


# ---------------------------------------------------------------------- transfer set
def test_transfer_rows_are_trained_on_with_the_teacher_alone(distill, run, tmp_path):
    Dataset.from_dict({"utterance": TEXTS[:3], "label": ["x", "y", "z"]}).to_json(tmp_path / "more.jsonl")
    distill("--transfer-dataset", tmp_path / "more.jsonl", "--num-train-epochs", 1)
    rows = run.last.train_dataset
    assert len(rows) == len(TEXTS) + 3
    assert list(rows["labels"]) == [*LABELS, *[-100] * 3]
    assert rows["input_ids"][-3:] == rows["input_ids"][:3]
    options = used(tmp_path / "out")["options"]
    assert (options["transfer_dataset"], options["transfer_rows"]) == ("more.jsonl", 3)


def test_a_transfer_set_moves_the_teacher_term_and_not_the_label_term(distill, run, tmp_path):
    Dataset.from_dict({"text": TEXTS[:5]}).to_parquet(tmp_path / "more.parquet")
    once = ("--preset", "none", "--set", "max_steps=1", "--set", "disable_dropout=true", "--set", "logging_steps=1")
    distill(*once)
    alone = run.log
    distill(*once, "--output-dir", tmp_path / "more", "--transfer-dataset", tmp_path / "more.parquet")
    assert run.log["ce_loss"] == pytest.approx(alone["ce_loss"], abs=1e-5)
    assert run.log["kd_loss"] != pytest.approx(alone["kd_loss"], abs=1e-3)


# ---------------------------------------------------------------------- every task
TASK_ROWS = {
    "multi_label_classification": {"text": TEXTS, "labels": [[1.0, 0.0, float(i % 2)] for i in range(8)]},
    "regression": {"text": TEXTS, "label": [float(i) for i in range(8)]},
    "token_classification": {"tokens": WORDS, "ner_tags": TAGS},
    "masked_lm": {"text": TEXTS},
    "causal_lm": {"text": TEXTS},
    "seq2seq_lm": {"text": TEXTS, "summary": TEXTS[::-1]},
}
LOSSES = {"multi_label_classification": "binary_kl", "regression": "regression_mse"}


@pytest.mark.parametrize("task", TASK_ROWS)
def test_every_task_that_can_be_compared_is_distilled(run, tmp_path, task):
    teacher, rows = save_teacher(tmp_path / "teacher", task), save_rows(tmp_path / "rows", **TASK_ROWS[task])
    settings = ("--output-dir", tmp_path / "out", "--num-train-epochs", 1)
    run("distill", "--teacher", teacher, "--dataset", rows, *settings)
    report = json.loads((tmp_path / "out" / "shrink_report.json").read_text())
    assert report["task"] == task
    assert all(entry["value"] is not None for entry in report["entries"])
    assert used(tmp_path / "out")["name"] == LOSSES.get(task, "forward_kl")
    assert {"kd_loss", "ce_loss"} <= set(run.log)


@pytest.mark.parametrize("task", ["question_answering", "feature_extraction"])
def test_a_task_that_cannot_be_compared_is_refused_before_training(run, tmp_path, rows, task):
    teacher = save_teacher(tmp_path / "teacher", task)
    with pytest.raises(ShrinkError, match=f"`teacher` must be for a task that can be compared.*{task}"):
        run("distill", "--teacher", teacher, "--dataset", rows, "--output-dir", tmp_path / "out")
    assert not run.trainers
