"""Training from a teacher's cache: the gradient of the teacher itself, every row found, and no teacher in the loop."""

import pytest
import torch

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments, TeacherCache, cache_teacher
from hf_shrink.errors import ShrinkError
from tests.distillation.one_step import ALPHA, TEMPERATURE, one_step
from tests.distillation.tasks import TASK_CASES, gradient_by_hand
from tests.models import tiny_tokenizer

SINGLE = TASK_CASES["single_label_classification"]


def cached(folder, task="single_label_classification", rows=None, **options):
    """A cache written by one object and opened by another."""
    case = TASK_CASES[task]
    rows = case.rows() if rows is None else rows
    cache_teacher(case.teacher(), rows, folder, data_collator=case.collator(), batch_size=3, **options)
    return TeacherCache.load(folder)


@pytest.mark.parametrize("task", TASK_CASES)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (1, 8)])
def test_gradient_is_that_of_the_teacher(tmp_path, task, batch_size, accumulation):
    cache = cached(tmp_path / "cache", task)
    gradient, _ = one_step(tmp_path, batch_size, accumulation, task=task, teacher_model=cache)
    expected = gradient_by_hand(TASK_CASES[task], ALPHA, TEMPERATURE)
    for name, value in expected.items():  # the cache holds half precision
        torch.testing.assert_close(gradient[name], value, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("pooling", [None, "cls"])
def test_hidden_states_come_from_the_cache(tmp_path, pooling):
    options = {"hidden_weight": 3.0, "layer_map": "last", "pooling": pooling}
    cache = cached(tmp_path / "cache", hidden_layers=[-1], pooling=pooling)
    found, _ = one_step(tmp_path, 8, 1, teacher_model=cache, **options)
    online, _ = one_step(tmp_path, 8, 1, teacher_model=SINGLE.teacher(), **options)
    for name, value in online.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=5e-3)


def train(folder, cache, *, resume=None, **options):
    settings = {"per_device_train_batch_size": 2, "save_steps": 3, **options}
    args = DistillationTrainingArguments(
        output_dir=str(folder), num_train_epochs=3, logging_steps=1, use_cpu=True, report_to=[], **settings
    )
    trainer = DistillationTrainer(
        model=SINGLE.student(),
        teacher_model=cache,
        args=args,
        train_dataset=SINGLE.rows(),
        data_collator=SINGLE.collator(),
        processing_class=tiny_tokenizer(),
    )
    trainer.train(resume_from_checkpoint=resume)
    return [entry["kd_loss"] for entry in trainer.state.log_history if "kd_loss" in entry]


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"dataloader_num_workers": 1}])
def test_every_row_is_found_in_every_epoch_and_after_a_resume(tmp_path, options):
    cache = cached(tmp_path / "cache")
    losses = train(tmp_path / "whole", cache, **options)  # shuffled anew in each epoch; a row not found would raise
    assert len(losses) == (6 if "gradient_accumulation_steps" in options else 12)
    resumed = train(tmp_path / "resumed", cache, resume=str(tmp_path / "whole" / "checkpoint-3"), **options)
    assert resumed == pytest.approx(losses, abs=1e-6)


def test_a_training_row_that_is_not_there_is_an_error(tmp_path):
    cache = cached(tmp_path / "cache", rows=SINGLE.rows().select(range(7)))
    with pytest.raises(ShrinkError, match="1 of the 8 rows"):
        one_step(tmp_path, 8, 1, teacher_model=cache)


def evaluate(tmp_path, cache, rows):
    args = DistillationTrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=4, report_to=[], use_cpu=True
    )
    trainer = DistillationTrainer(
        model=SINGLE.student(), teacher_model=cache, args=args, eval_dataset=rows, data_collator=SINGLE.collator()
    )
    return trainer.evaluate()


def test_evaluation_compares_with_the_teacher_only_where_all_rows_are_there(tmp_path):
    rows = SINGLE.rows()
    whole = evaluate(tmp_path, cached(tmp_path / "whole"), rows)
    online = evaluate(tmp_path, SINGLE.teacher(), rows)
    assert whole["eval_agreement"] == online["eval_agreement"]
    assert whole["eval_kd_loss"] == pytest.approx(online["eval_kd_loss"], rel=1e-2)
    half = evaluate(tmp_path, cached(tmp_path / "half", rows=rows.select(range(4))), rows)
    none = evaluate(tmp_path, cached(tmp_path / "none", rows=rows.select([0])), rows.select(range(4, 8)))
    for metrics in (half, none):
        assert "eval_agreement" not in metrics
        assert metrics["eval_ce_loss"] > 0
    assert half["eval_ce_loss"] == pytest.approx(online["eval_ce_loss"], rel=1e-5)


def test_unlabelled_rows_that_are_not_there_are_an_error(tmp_path):
    rows = SINGLE.rows().remove_columns("labels")
    with pytest.raises(ShrinkError, match="`teacher_model`"):
        evaluate(tmp_path, cached(tmp_path / "cache", rows=rows.select([0])), rows)


REFUSED = {
    "another task": ("regression", {}, "`teacher_model`"),
    "hidden states that were not kept": ("single_label_classification", {"hidden_weight": 1.0}, "hidden_layers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_cache_of_something_else_is_refused(tmp_path, case):
    task, options, match = REFUSED[case]
    cache = cached(tmp_path / "cache", task)
    with pytest.raises(ShrinkError, match=match):
        one_step(tmp_path, 8, 1, teacher_model=cache, **options)


def test_permuted_classes_are_aligned_by_name(tmp_path):
    order, names = [2, 0, 1], ["lost", "transfer", "pin"]
    teacher, permuted, student = SINGLE.teacher(), SINGLE.teacher(), SINGLE.student()
    with torch.no_grad():
        permuted.classifier.weight.copy_(teacher.classifier.weight[order])
        permuted.classifier.bias.copy_(teacher.classifier.bias[order])
    for model, own in ((teacher, names), (permuted, [names[i] for i in order]), (student, names)):
        model.config.id2label = dict(enumerate(own))
        model.config.label2id = {name: i for i, name in enumerate(own)}
    cache = cache_teacher(permuted, SINGLE.rows(), tmp_path / "cache", data_collator=SINGLE.collator())
    found, _ = one_step(tmp_path, 8, 1, teacher_model=cache, model=student)
    online, _ = one_step(tmp_path, 8, 1, teacher_model=teacher)
    torch.testing.assert_close(found["classifier.weight"], online["classifier.weight"], rtol=1e-2, atol=5e-3)


def test_the_likeliest_tokens_alone_ask_for_temperature_1(tmp_path):
    """Softened, their tail would take the mass of the head: the gradient would lead away from the teacher."""
    cache = cached(tmp_path / "cache", "causal_lm", top_k=6)
    with pytest.raises(ShrinkError, match="`temperature`"):
        one_step(tmp_path, 8, 1, task="causal_lm", teacher_model=cache)
    gradient, _ = one_step(tmp_path, 8, 1, task="causal_lm", teacher_model=cache, temperature=1.0)
    assert all(torch.isfinite(value).all() for value in gradient.values())
