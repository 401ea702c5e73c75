"""Training on soft labels: what training with their teacher would be, without one."""

import pytest
import torch
from datasets import Dataset, List, Value, concatenate_datasets, load_dataset
from torch.utils.data import Dataset as TorchDataset

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.soft_labels import check_soft_labels
from hf_shrink.errors import ShrinkError
from tests.distillation.gradients import assert_same_gradient, in_processes
from tests.distillation.one_step import ALPHA, TEMPERATURE, one_step
from tests.distillation.soft_rows import SOFT_TASKS, soft_rows
from tests.distillation.tasks import TASK_CASES, gradient_by_hand
from tests.models import tiny_tokenizer

SINGLE = TASK_CASES["single_label_classification"]
HALF = {"rtol": 1e-2, "atol": 5e-3}  # what half precision may change of a gradient


# ------------------------------------------------------------------ the gradient
@pytest.mark.parametrize("task", SOFT_TASKS)
def test_gradient_is_that_of_the_teacher(tmp_path, task):
    gradient, trainer = one_step(tmp_path, 4, 2, task=task, rows=soft_rows(task))
    expected = gradient_by_hand(TASK_CASES[task], ALPHA, TEMPERATURE)
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, **HALF)
    alone, _ = one_step(tmp_path, 8, 1, task=task)
    largest = max((gradient[name] - alone[name]).abs().max() for name in gradient)
    assert largest > 0.01  # labels alone would lead elsewhere
    assert "kd_loss" in trainer.state.log_history[0]


@pytest.mark.parametrize("task", SOFT_TASKS)
def test_accumulated_batches_change_nothing(tmp_path, task):
    whole, _ = one_step(tmp_path, 8, 1, task=task, rows=soft_rows(task))
    for batch_size, accumulation in ((1, 8), (2, 4)):
        parts, _ = one_step(tmp_path, batch_size, accumulation, task=task, rows=soft_rows(task))
        assert_same_gradient(parts, whole)


@pytest.mark.slow
def test_processes_change_nothing(tmp_path):
    found = in_processes(2, tmp_path, 2, 2, *SOFT_TASKS, module="tests.distillation.soft_step")
    assert set(found) == set(SOFT_TASKS)
    for task, gradient in found.items():
        whole, _ = one_step(tmp_path / "one", 8, 1, task=task, rows=soft_rows(task))
        assert_same_gradient(gradient, whole)


LOGIT_LOSSES = [name for name, loss in LOSSES.items() if "classes" in loss.facts["outputs"]]


@pytest.mark.parametrize("loss", LOGIT_LOSSES)
def test_every_loss_on_the_scores_is_that_of_the_teacher(tmp_path, loss):
    options = {"logit_loss": loss, "temperature": 1.5, "alpha": 0.4}
    found, _ = one_step(tmp_path, 4, 2, rows=soft_rows(), **options)
    live, _ = one_step(tmp_path, 4, 2, teacher_model=SINGLE.teacher(), **options)
    for name, value in live.items():
        torch.testing.assert_close(found[name], value, **HALF)


def test_rows_without_labels_learn_from_the_scores_alone(tmp_path):
    rows = soft_rows(drop=["labels"])
    found, _ = one_step(tmp_path, 4, 2, rows=rows)
    live, _ = one_step(tmp_path, 4, 2, rows=SINGLE.rows().remove_columns("labels"), teacher_model=SINGLE.teacher())
    for name, value in live.items():
        torch.testing.assert_close(found[name], value, **HALF)


# ------------------------------------------------------------------ a whole run
def train(folder, rows, teacher=None, **options):
    settings = {"per_device_train_batch_size": 2, "num_train_epochs": 3, "save_strategy": "no", **options}
    resume = settings.pop("resume", None)
    args = DistillationTrainingArguments(
        output_dir=str(folder), logging_steps=1, learning_rate=1e-3, use_cpu=True, report_to=[], **settings
    )
    trainer = DistillationTrainer(
        model=SINGLE.student(),
        teacher_model=teacher,
        args=args,
        train_dataset=rows,
        eval_dataset=SINGLE.rows(),
        data_collator=SINGLE.collator(),
        processing_class=tiny_tokenizer(),
        compute_metrics="accuracy",
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer, name="kd_loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_a_run_is_that_with_the_teacher_and_a_resumed_one_too(tmp_path):
    live = train(tmp_path / "live", SINGLE.rows(), SINGLE.teacher())
    soft = train(tmp_path / "soft", soft_rows(), save_strategy="steps", save_steps=5)
    assert len(losses(soft)) == 12
    for name in ("loss", "kd_loss", "ce_loss"):
        assert losses(soft, name) == pytest.approx(losses(live, name), rel=5e-3, abs=2e-3)
    resumed = train(tmp_path / "resumed", soft_rows(), resume=str(tmp_path / "soft" / "checkpoint-5"))
    assert losses(resumed) == pytest.approx(losses(soft), abs=1e-6)


def test_rows_from_a_file_and_from_a_stream(tmp_path):
    soft_rows().to_parquet(tmp_path / "train.parquet")
    files = {"path": "parquet", "data_files": str(tmp_path / "train.parquet"), "split": "train"}
    expected = losses(train(tmp_path, soft_rows(), max_steps=4, per_device_train_batch_size=8))
    for rows in (load_dataset(**files), load_dataset(**files, streaming=True)):
        found = losses(train(tmp_path, rows, max_steps=4, per_device_train_batch_size=8))
        assert found == pytest.approx(expected, abs=1e-6)


def test_evaluation_needs_no_soft_labels_and_compares_where_there_are_some(tmp_path):
    trainer = train(tmp_path, soft_rows(), max_steps=1)
    without = trainer.evaluate()
    assert without["eval_ce_loss"] > 0
    assert "eval_accuracy" in without
    assert "eval_agreement" not in without
    soft = trainer.evaluate(soft_rows())
    live = DistillationTrainer(
        model=trainer.model,
        teacher_model=SINGLE.teacher(),
        args=trainer.args,
        eval_dataset=SINGLE.rows(),
        data_collator=SINGLE.collator(),
    ).evaluate()
    assert soft["eval_agreement"] == live["eval_agreement"]
    assert soft["eval_kd_loss"] == pytest.approx(live["eval_kd_loss"], rel=1e-2)
    assert soft["eval_ce_loss"] == pytest.approx(without["eval_ce_loss"])
    assert trainer.evaluate(soft_rows(drop=["labels"]))["eval_kd_loss"] == pytest.approx(soft["eval_kd_loss"])


def test_the_card_speaks_of_a_teacher(tmp_path):
    trainer = train(tmp_path, soft_rows(), max_steps=1)
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "the teacher whose soft labels stand in the training rows" in card
    assert "forward_kl" in card


# ------------------------------------------------------------------ what is refused
def with_column(values, dtype="float16"):
    return SINGLE.rows().add_column("soft_label", values, feature=List(Value(dtype)))


def row(place, value):
    return with_column([value if i == place else [0.0, 1.0, 2.0] for i in range(8)])


REFUSED = {
    "of other classes": ({"rows": with_column([[0.0, 1.0]] * 8)}, "each of the student's 3 outputs, got 2"),
    "of other classes in one row": ({"rows": row(5, [0.0])}, "each of the student's 3 outputs, got 1"),
    "NaN": ({"rows": row(4, [0.0, float("nan"), 1.0])}, "finite scores, but row 4"),
    "infinity": ({"rows": row(2, [0.0, float("-inf"), 1.0])}, "finite scores, but row 2"),
    "missing in a row": (
        {"rows": concatenate_datasets([soft_rows(), SINGLE.rows()])},
        "filled in every row, but row 8",
    ),
    "one number": (
        {"rows": SINGLE.rows().add_column("soft_label", [0.5] * 8)},
        "one score a class in each row, got double",
    ),
    "beside a teacher": ({"teacher_model": SINGLE.teacher()}, "`teacher_model` must be None"),
    "for tokens": (
        {
            "task": "token_classification",
            "rows": TASK_CASES["token_classification"].rows().add_column("soft_label", [[0.0] * 3] * 8),
        },
        "got a student for token_classification",
    ),
    "beside hidden states": ({"hidden_weight": 1.0}, "`hidden_weight` must be 0"),
    "beside attention": ({"attention_weight": 1.0}, "`attention_weight` must be 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_soft_labels_that_no_student_can_learn_from_are_refused(tmp_path, case):
    changes, match = REFUSED[case]
    with pytest.raises(ShrinkError, match=match):
        one_step(tmp_path, 8, 1, **{"rows": soft_rows(), **changes})


def test_a_stream_of_other_classes_is_refused_at_its_first_batch(tmp_path):
    with pytest.raises(ShrinkError, match="each of the student's 3 outputs, got 2"):
        one_step(tmp_path, 8, 1, rows=with_column([[0.0, 1.0]] * 8).to_iterable_dataset())


class Rows(TorchDataset):
    """A dataset that names no columns."""

    def __init__(self, rows):
        self.rows = list(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        return self.rows[place]


def test_soft_labels_are_not_left_unread_in_silence(tmp_path):
    with pytest.raises(ShrinkError, match="`train_dataset` must name its columns"):
        one_step(tmp_path, 8, 1, rows=Rows(soft_rows()))


def test_a_collator_that_leaves_them_out_is_found(tmp_path):
    args = DistillationTrainingArguments(output_dir=str(tmp_path), max_steps=1, use_cpu=True, report_to=[])

    def collate(rows):
        batch = SINGLE.collator()(rows)
        return {name: value for name, value in batch.items() if name != "soft_label"}

    trainer = DistillationTrainer(
        model=SINGLE.student(), args=args, train_dataset=soft_rows(), data_collator=collate
    )  # fmt: skip
    with pytest.raises(ShrinkError, match="the collator left it out"):
        trainer.train()


def test_the_evaluation_rows_are_checked_too(tmp_path):
    args = DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    for evaluation in (with_column([[0.0, 1.0]] * 8), {"a": SINGLE.rows(), "b": with_column([[0.0, 1.0]] * 8)}):
        with pytest.raises(ShrinkError, match="3 outputs, got 2"):
            DistillationTrainer(
                model=SINGLE.student(), args=args, train_dataset=soft_rows(), eval_dataset=evaluation
            )  # fmt: skip


def test_an_empty_column_is_no_error():
    check_soft_labels(Dataset.from_dict({"soft_label": []}), 3)
