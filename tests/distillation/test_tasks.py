"""Every task: its gradient is the one written by hand, however the rows are spread over batches and processes."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.errors import ShrinkError
from tests.distillation.curves import curve
from tests.distillation.gradients import assert_same_gradient, in_processes
from tests.distillation.one_step import ALPHA, TEMPERATURE, one_step
from tests.distillation.tasks import TASK_CASES, gradient_by_hand

UNLABELLED = "feature_extraction"  # without a teacher nothing is left to learn, and Trainer has no loss for it
LABELLED = [task for task in TASK_CASES if task != UNLABELLED]


@pytest.fixture(params=list(TASK_CASES))
def task(request):
    return request.param


@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (1, 8), (3, 3)])
def test_gradient_is_the_one_written_by_hand(tmp_path, task, batch_size, accumulation):
    case = TASK_CASES[task]
    gradient, _ = one_step(tmp_path, batch_size, accumulation, task=task, teacher_model=case.teacher())
    assert_same_gradient(gradient, gradient_by_hand(case, ALPHA, TEMPERATURE))


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 1), (1, 4)])
def test_gradients_are_the_same_in_two_processes(tmp_path, batch_size, accumulation):
    gradients = in_processes(2, tmp_path, batch_size, accumulation, *TASK_CASES)
    assert gradients.keys() == TASK_CASES.keys()
    for task, case in TASK_CASES.items():
        assert_same_gradient(gradients[task], gradient_by_hand(case, ALPHA, TEMPERATURE))


def test_a_trainer_that_ignored_its_teacher_would_be_seen(task):
    case = TASK_CASES[task]
    heard = gradient_by_hand(case, ALPHA, TEMPERATURE)
    other = gradient_by_hand(case, 0.0, TEMPERATURE) if task != UNLABELLED else dict.fromkeys(heard, torch.zeros(1))
    assert max((heard[name] - other[name]).abs().max() for name in heard) > 1e-2


@pytest.mark.parametrize("task", LABELLED)
@pytest.mark.parametrize("accumulation", [1, 8])
def test_without_a_teacher_the_gradient_is_that_of_the_whole_batch(tmp_path, task, accumulation):
    # Without a teacher, padding takes part in the softmax of spans, as it does in transformers: one length for all.
    rows = TASK_CASES[task].rows()
    rows = rows.filter(lambda row: len(row["input_ids"]) == 4) if task == "question_answering" else rows
    gradient, _ = one_step(tmp_path, len(rows) // accumulation or 1, accumulation, task=task, rows=rows)
    assert_same_gradient(gradient, gradient_by_hand(TASK_CASES[task], 0.0, TEMPERATURE, rows))


@pytest.mark.parametrize("task", LABELLED)
def test_without_a_teacher_it_is_trainer_to_the_last_bit(tmp_path, task):
    losses, weights = curve(DistillationTrainer, DistillationTrainingArguments, tmp_path, task)
    plain_losses, plain_weights = curve(Trainer, TrainingArguments, tmp_path, task)
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)


def evaluate(tmp_path, task, model):
    case = TASK_CASES[task]
    trainer = DistillationTrainer(
        model=model,
        teacher_model=case.teacher(),
        args=DistillationTrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=3, report_to=[], use_cpu=True
        ),
        eval_dataset=case.rows(),
        data_collator=case.collator(),
    )
    return trainer.evaluate()


def test_evaluation_reports_the_teacher(tmp_path, task):
    metrics = evaluate(tmp_path, task, TASK_CASES[task].student())
    assert metrics["eval_kd_loss"] > 0
    assert metrics["eval_loss"] > 0
    assert ("eval_ce_loss" in metrics) == (task != UNLABELLED)
    if task in ("regression", UNLABELLED):
        assert "eval_agreement" not in metrics  # numbers and vectors decide nothing
    else:
        assert 0 <= metrics["eval_agreement"] < 1


def test_a_copy_agrees_with_its_teacher(tmp_path, task):
    metrics = evaluate(tmp_path, task, TASK_CASES[task].teacher())
    assert metrics["eval_kd_loss"] == pytest.approx(0, abs=1e-6)
    assert metrics.get("eval_agreement", 1.0) == 1.0


def test_a_loss_that_does_not_fit_the_task_is_refused(tmp_path, task):
    case = TASK_CASES[task]
    wrong = "dkd" if task == UNLABELLED else "hidden_mse"
    with pytest.raises(ShrinkError, match="`logit_loss`"):
        one_step(tmp_path, 8, 1, task=task, teacher_model=case.teacher(), logit_loss=wrong)


def test_the_card_names_the_loss_that_was_used(tmp_path):
    case = TASK_CASES["multi_label_classification"]
    _, trainer = one_step(
        tmp_path, 8, 1, task="multi_label_classification", teacher_model=case.teacher(), hidden_weight=1.0
    )
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "binary_kl" in card
    assert "hidden_mse" in card
    assert "forward_kl" not in card
