"""Options that Trainer's users know do the same here, with a teacher and with hidden states."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from transformers import EarlyStoppingCallback

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.versions import length_grouping
from tests.distillation.gradients import assert_same_gradient
from tests.distillation.one_step import one_step
from tests.distillation.tasks import TASK_CASES

CASE = TASK_CASES["single_label_classification"]
SAME_GRADIENT = {
    "length grouping": length_grouping(),
    "workers": {"dataloader_num_workers": 1},
    "no dropout": {"disable_dropout": True},
}


def step(folder, **options):
    return one_step(folder, 4, 2, teacher_model=CASE.teacher(), hidden_weight=1.0, layer_map="last", **options)


@pytest.mark.parametrize("option", SAME_GRADIENT)
def test_it_changes_nothing_of_the_gradient(tmp_path, option):
    assert_same_gradient(step(tmp_path)[0], step(tmp_path, **SAME_GRADIENT[option])[0])


def test_gradient_checkpointing_changes_nothing_of_the_gradient(tmp_path):
    student = CASE.student()
    with warnings.catch_warnings():  # the name of transformers 5 comes when transformers 4 goes
        warnings.simplefilter("ignore", FutureWarning)
        student.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_gradient(step(tmp_path)[0], step(tmp_path, model=student)[0])


def test_bf16_is_near_fp32(tmp_path):
    plain, half = step(tmp_path)[0], step(tmp_path, bf16=True)[0]
    cosine = F.cosine_similarity(plain["classifier.weight"].flatten(), half["classifier.weight"].flatten(), dim=0)
    assert cosine > 0.99
    assert not torch.equal(plain["classifier.weight"], half["classifier.weight"])
    assert half["classifier.weight"].dtype == torch.float32
    assert all(torch.isfinite(value).all() for value in half.values())


def test_neftune_moves_the_student_alone(tmp_path):
    plain, noisy = step(tmp_path)[1], step(tmp_path, neftune_noise_alpha=5.0)[1]
    logs = [next(entry for entry in t.state.log_history if "kd_loss" in entry) for t in (plain, noisy)]
    assert logs[0]["kd_loss"] != logs[1]["kd_loss"]
    inputs = {k: v for k, v in CASE.collator()([dict(row) for row in CASE.rows()]).items() if k != "labels"}
    torch.testing.assert_close(noisy.teacher(inputs).scores, CASE.teacher()(**inputs).logits)


def trainer(folder, callbacks=None, compute_loss_func=None, **options):
    args = DistillationTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, use_cpu=True, report_to=[], logging_steps=1, **options
    )
    return DistillationTrainer(
        model=CASE.student(),
        teacher_model=CASE.teacher(),
        args=args,
        train_dataset=CASE.rows(),
        eval_dataset=CASE.rows(),
        data_collator=CASE.collator(),
        callbacks=callbacks,
        compute_loss_func=compute_loss_func,
    )


def test_the_best_student_is_loaded_at_the_end_and_training_stops_early(tmp_path):
    run = trainer(
        tmp_path,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        num_train_epochs=20,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_agreement",
        learning_rate=1e-3,
    )
    run.train()
    found = [entry["eval_agreement"] for entry in run.state.log_history if "eval_agreement" in entry]
    assert run.state.best_metric == max(found)
    assert len(found) < 20
    assert run.evaluate()["eval_agreement"] == max(found)


def test_a_loss_of_the_users_own_stands_for_the_labels(tmp_path):
    def doubled(outputs, labels, num_items_in_batch=None):
        return 2 * F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    logs = []
    for loss in (None, doubled):
        run = trainer(tmp_path, compute_loss_func=loss, max_steps=1, save_strategy="no")
        run.train()
        logs.append(next(entry for entry in run.state.log_history if "ce_loss" in entry))
    assert logs[1]["ce_loss"] == pytest.approx(2 * logs[0]["ce_loss"], rel=1e-5)
    assert logs[1]["kd_loss"] == pytest.approx(logs[0]["kd_loss"], rel=1e-5)
