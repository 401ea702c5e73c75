"""DistillationTrainer against a loss written by hand, against Trainer, and under the conditions of real training."""

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors.torch import load_file
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from hf_shrink.distillation import LOSSES, DistillationTrainer, DistillationTrainingArguments, make_student
from hf_shrink.errors import ShrinkError
from tests.distillation.curves import curve
from tests.distillation.gradients import assert_same_gradient
from tests.distillation.one_step import ALPHA, TEMPERATURE, one_step
from tests.distillation.tasks import CLASSES, TASK_CASES, gradient_by_hand
from tests.models import tiny_bert_classifier, tiny_tokenizer

SINGLE = TASK_CASES["single_label_classification"]
rows, student, teacher = SINGLE.rows, SINGLE.student, SINGLE.teacher
TASK_OF_OUTPUTS = {
    "single_label_classification": "classes",
    "multi_label_classification": "labels",
    "regression": "values",
    "feature_extraction": "features",
}


def batch():
    return DataCollatorWithPadding(tiny_tokenizer())([dict(row) for row in rows()])


def test_options_reach_the_loss(tmp_path):
    at_the_limit, between = (
        one_step(tmp_path, 8, 1, teacher_model=teacher(), logit_loss="jsd", beta=beta)[0] for beta in (0.0, 0.5)
    )
    assert_same_gradient(at_the_limit, gradient_by_hand(SINGLE, ALPHA, TEMPERATURE))
    assert (between["classifier.weight"] - at_the_limit["classifier.weight"]).abs().max() > 1e-2
    light, heavy = (
        one_step(
            tmp_path, 8, 1, teacher_model=teacher(), logit_loss="dkd", logit_loss_kwargs={"non_target_weight": weight}
        )[0]
        for weight in (1.0, 8.0)
    )
    assert (light["classifier.weight"] - heavy["classifier.weight"]).abs().max() > 1e-2


ON_SCORES = {  # a task whose scores a loss can compare, for every loss that takes each position by itself
    name: next(task for task, kind in TASK_OF_OUTPUTS.items() if kind in loss.facts["outputs"])
    for name, loss in LOSSES.items()
    if loss.facts["compares"] == "positions" and not set(loss.facts["outputs"]) <= {"attention", "relations"}
}  # what is compared within the layers has its own test_attention.py


@pytest.mark.parametrize("loss", ON_SCORES)
def test_every_loss_gives_the_same_gradient_however_its_rows_are_spread(tmp_path, loss):
    task = ON_SCORES[loss]
    whole, accumulated = (
        one_step(tmp_path, n, 8 // n, task=task, teacher_model=TASK_CASES[task].teacher(), logit_loss=loss)[0]
        for n in (8, 1)
    )
    assert_same_gradient(whole, accumulated)


def test_a_loss_between_rows_is_taken(tmp_path):
    similar, _ = one_step(tmp_path, 8, 1, teacher_model=teacher(), logit_loss="similarity_preserving")
    ignored = gradient_by_hand(SINGLE, 0.0, TEMPERATURE)
    assert (similar["classifier.weight"] - ignored["classifier.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize("more", [{}, {"bf16": True}], ids=["fp32", "bf16"])
def test_without_a_teacher_it_is_trainer_to_the_last_bit(tmp_path, more):
    losses, weights = curve(DistillationTrainer, DistillationTrainingArguments, tmp_path, **more)
    plain_losses, plain_weights = curve(Trainer, TrainingArguments, tmp_path, **more)
    assert losses == plain_losses
    assert len(losses) == 12
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)


def test_label_smoothing_is_that_of_trainer(tmp_path):
    losses, _ = curve(DistillationTrainer, DistillationTrainingArguments, tmp_path, label_smoothing_factor=0.1)
    plain_losses, _ = curve(Trainer, TrainingArguments, tmp_path, label_smoothing_factor=0.1)
    assert losses == pytest.approx(plain_losses, rel=1e-5)


def test_log_holds_the_terms_that_make_the_loss(tmp_path):
    _, trainer = one_step(tmp_path, 2, 4, teacher_model=teacher())
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["kd_loss"] > 0
    assert log["loss"] == pytest.approx(ALPHA * log["kd_loss"] + (1 - ALPHA) * log["ce_loss"], rel=1e-4)


def evaluation(tmp_path, model, teacher_model, data, **options):
    trainer = DistillationTrainer(
        model=model,
        teacher_model=teacher_model,
        args=DistillationTrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=3, report_to=[], use_cpu=True
        ),
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
        **options,
    )
    return trainer.evaluate()


def test_evaluation_reports_terms_and_agreement(tmp_path):
    metrics = evaluation(tmp_path, student(), teacher(), rows(), compute_metrics="accuracy")
    inputs = batch()
    inputs.pop("labels")
    with torch.no_grad():
        own, theirs = student()(**inputs).logits, teacher()(**inputs).logits
    known = torch.tensor(CLASSES) != -100
    entropy = F.cross_entropy(own[known], torch.tensor(CLASSES)[known])
    agreement = (own.argmax(-1) == theirs.argmax(-1)).double().mean()
    assert metrics["eval_agreement"] == pytest.approx(agreement.item())
    assert 0 < agreement < 1
    assert metrics["eval_ce_loss"] == pytest.approx(entropy.item(), rel=1e-5)
    assert metrics["eval_kd_loss"] > 0
    assert "eval_accuracy" in metrics


def test_a_copy_agrees_with_its_teacher(tmp_path):
    metrics = evaluation(tmp_path, make_student(teacher(), num_hidden_layers=4), teacher(), rows())
    assert metrics["eval_agreement"] == 1.0
    assert metrics["eval_kd_loss"] == pytest.approx(0, abs=1e-6)


def test_rows_without_labels_learn_from_the_teacher(tmp_path):
    data = rows().remove_columns("labels")
    trainer = DistillationTrainer(
        model=student(),
        teacher_model=teacher(),
        args=DistillationTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            logging_steps=1,
            alpha=0.1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
        ),
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
    )
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert "ce_loss" not in log
    assert log["loss"] == pytest.approx(log["kd_loss"], rel=1e-4)  # alpha counts as 1


def relabelled(names):
    model = teacher()
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    return model


def test_permuted_labels_are_aligned_by_name(tmp_path):
    order = [2, 0, 1]  # the permuted teacher's class i is the class order[i] of the usual one
    names = ["lost", "transfer", "pin"]
    permuted = relabelled([names[i] for i in order])
    with torch.no_grad():
        permuted.classifier.weight.copy_(teacher().classifier.weight[order])
        permuted.classifier.bias.copy_(teacher().classifier.bias[order])
    results = []
    for teacher_model in (relabelled(names), permuted):
        model = student()
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
        results.append(evaluation(tmp_path, model, teacher_model, rows()))
    assert results[0]["eval_kd_loss"] == pytest.approx(results[1]["eval_kd_loss"], abs=1e-7)
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], abs=1e-7)


def test_the_teacher_reads_columns_that_its_student_does_not(tmp_path):
    model = student()
    forward = model.forward

    def without_token_types(input_ids=None, attention_mask=None, labels=None):
        return forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    model.forward = without_token_types
    data = rows().map(lambda row: {"token_type_ids": [1] * len(row["input_ids"])})
    with_types = evaluation(tmp_path, model, teacher(), data)
    without = evaluation(tmp_path, model, teacher(), rows())
    assert with_types["eval_ce_loss"] == pytest.approx(without["eval_ce_loss"])
    assert with_types["eval_kd_loss"] != pytest.approx(without["eval_kd_loss"])


def test_the_saved_model_holds_nothing_of_the_teacher(tmp_path):
    _, trainer = one_step(tmp_path / "run", 8, 1, teacher_model=teacher())
    trainer.save_model(str(tmp_path / "saved"))
    keys = load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert set(keys) == {name for name, _ in student().named_parameters()}


def make_trainer(tmp_path, **changes):
    args = DistillationTrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    return DistillationTrainer(**{"model": student(), "teacher_model": teacher(), "args": args, **changes})


REFUSED = {
    "disjoint labels": lambda p: {"teacher_model": relabelled(["a", "b", "c"]), "model": named_student()},
    "other number of labels": lambda p: {"teacher_model": tiny_bert_classifier(num_labels=5)},
    "other vocabulary": lambda p: {"teacher_model": tiny_bert_classifier(vocab_size=40)},
    "label out of range": lambda p: {"train_dataset": Dataset.from_dict({"input_ids": [[2, 3]], "labels": [3]})},
    "teacher for another task": lambda p: {"teacher_model": tiny_bert_classifier(problem_type="regression")},
    "plain arguments": lambda p: {"args": TrainingArguments(output_dir=str(p), report_to=[], use_cpu=True)},
    "missing teacher folder": lambda p: {"teacher_model": str(p / "nowhere")},
}


def named_student():
    model = student()
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    model.config.label2id = {"x": 0, "y": 1, "z": 2}
    return model


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_any_work(tmp_path, case):
    with pytest.raises(ShrinkError) as error:
        make_trainer(tmp_path, **REFUSED[case](tmp_path))
    assert str(error.value).startswith("`")
    assert str(error.value).rstrip().endswith(".")


def test_a_padded_vocabulary_is_accepted_with_its_tokenizer(tmp_path):
    padded = tiny_bert_classifier(vocab_size=64)
    make_trainer(tmp_path, teacher_model=padded, processing_class=tiny_tokenizer())


def test_a_teacher_with_another_tokenizer_is_refused(tmp_path):
    folder = tmp_path / "teacher"
    teacher().save_pretrained(folder)
    words = [f"word{i}" for i in range(len(tiny_tokenizer()) - 5)]
    tiny_tokenizer(words).save_pretrained(folder)
    with pytest.raises(ShrinkError, match="tokenizer"):
        make_trainer(tmp_path, teacher_model=str(folder), processing_class=tiny_tokenizer())
