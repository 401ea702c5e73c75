"""Encoder-decoders: generation in evaluation, beside the teacher's terms."""

import pytest
import torch
from transformers import HfArgumentParser

from hf_shrink.distillation import Seq2SeqDistillationTrainer, Seq2SeqDistillationTrainingArguments
from tests.distillation.tasks import TASK_CASES

CASE = TASK_CASES["seq2seq_lm"]


def shape(prediction):
    """Generated tokens have two axes, logits three."""
    found = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"axes": found.ndim, "longest": (found > 0).sum(1).max().item()}


def trainer(folder, **options):
    args = Seq2SeqDistillationTrainingArguments(
        output_dir=str(folder), per_device_eval_batch_size=4, use_cpu=True, report_to=[], max_steps=1, **options
    )
    return Seq2SeqDistillationTrainer(
        model=CASE.student(),
        teacher_model=CASE.teacher(),
        args=args,
        train_dataset=CASE.rows(),
        eval_dataset=CASE.rows(),
        data_collator=CASE.collator(),
        compute_metrics=shape,
    )


def test_it_generates_and_reports_the_teacher(tmp_path):
    generating = trainer(tmp_path, predict_with_generate=True, generation_max_length=7)
    metrics = generating.evaluate()
    assert metrics["eval_axes"] == 2
    assert metrics["eval_longest"] <= 7
    plain = trainer(tmp_path).evaluate()
    assert plain["eval_axes"] == 3
    for name in ("eval_loss", "eval_kd_loss", "eval_ce_loss", "eval_agreement"):
        assert metrics[name] == pytest.approx(plain[name], rel=1e-5)


def test_generation_can_be_set_for_one_evaluation(tmp_path):
    assert trainer(tmp_path, predict_with_generate=True).evaluate(max_length=3)["eval_longest"] <= 3


def test_it_trains_as_the_plain_distillation_trainer(tmp_path):
    own = trainer(tmp_path, logging_steps=1)
    before = {name: p.clone() for name, p in own.model.named_parameters()}
    own.train()
    log = next(entry for entry in own.state.log_history if "loss" in entry)
    assert log["loss"] == pytest.approx(0.5 * log["kd_loss"] + 0.5 * log["ce_loss"], rel=1e-4)
    assert any(not torch.equal(before[name], p) for name, p in own.model.named_parameters())


def test_command_line_round_trip(tmp_path):
    line = ["--output_dir", str(tmp_path), "--predict_with_generate", "true", "--temperature", "3"]
    (args,) = HfArgumentParser(Seq2SeqDistillationTrainingArguments).parse_args_into_dataclasses(line)
    assert (args.predict_with_generate, args.temperature) == (True, 3.0)
