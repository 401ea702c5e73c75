"""Scores from an ordinary training run."""

import shutil

import numpy as np
import pytest
import torch
from transformers import Trainer

from hf_shrink import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.dataset_distillation import SCORES as REGISTRY
from hf_shrink.dataset_distillation import TrainingDynamicsCallback
from hf_shrink.dataset_distillation.dynamics import STATISTICS
from hf_shrink.dataset_distillation.recorder import Recorder
from hf_shrink.errors import ShrinkError
from hf_shrink.versions import length_grouping
from tests.dataset_distillation.scored_runs import SCORES, SINGLE, arguments, same, still, train
from tests.distillation.tasks import CLASSES, TASK_CASES
from tests.processes import run_processes

SCORED = [name for name in TASK_CASES if name not in ("regression", "question_answering", "feature_extraction")]
SEEN = np.array(CLASSES) != -100
RUNS = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    "workers": {"dataloader_num_workers": 2},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "rows of a length together": length_grouping(),
    "all columns": {"remove_unused_columns": False},
    "bf16": {"bf16": True},
    "checkpoints": {"save_strategy": "steps", "save_steps": 2},
}


@pytest.fixture
def callback():
    return TrainingDynamicsCallback(SCORES)


def by_hand(case):
    """The loss of each row alone, without a trainer, a batch or padding."""
    model, found = case.student().eval(), []
    for row in case.rows():
        batch = dict(case.collator()([row]))
        with torch.no_grad():
            outputs = model(**batch)
        part = case.by_hand(outputs, outputs, batch, 1.0)
        found.append(float(part.ce) / part.labelled if part.labelled else np.nan)
    return np.array(found, dtype=np.float32)


@pytest.mark.parametrize("task", SCORED)
def test_each_row_has_its_own_values_in_every_task(tmp_path, task):
    case = TASK_CASES[task]
    dynamics = still(tmp_path, case=case, callback=TrainingDynamicsCallback(SCORES, task=task)).recorder.dynamics
    assert {values.shape for values in dynamics.values()} == {(3, 8)}
    for epoch in dynamics["loss"]:
        np.testing.assert_allclose(epoch, by_hand(case), rtol=2e-4, atol=2e-5)


def losses(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize("run", [*RUNS, "own loss"])
def test_weights_become_what_they_would_and_every_row_is_seen(tmp_path, callback, run):
    options = dict(RUNS[run]) if run in RUNS else {"trainer_options": {"compute_loss_func": losses}}
    scored, plain = train(tmp_path / "a", callback, **options), train(tmp_path / "b", None, **options)
    for own, other in zip(scored.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(own, other)
    assert scored.state.global_step == plain.state.global_step
    values = callback.recorder.dynamics
    assert values.keys() == STATISTICS.keys()
    for name in values:
        assert (~np.isnan(values[name]) == SEEN).all(), name
    loss = still(tmp_path / "c", **options).recorder.dynamics["loss"]
    tolerance = 0.05 if run == "bf16" else 1e-4
    np.testing.assert_allclose(loss, np.tile(by_hand(SINGLE), (3, 1)), rtol=tolerance, atol=tolerance)


def test_scores_are_those_of_the_statistics(tmp_path, callback):
    train(tmp_path, callback)
    scores = callback.scores()
    assert list(scores) == SCORES
    for name, values in scores.items():
        assert np.array_equal(values, REGISTRY[name].function(callback.recorder.dynamics), equal_nan=True)
        assert values.shape == (8,)
        assert (np.isfinite(values) == SEEN).all()


def test_what_is_seen_is_what_the_model_was_before_it_learned_the_row(tmp_path, callback):
    one_step = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-3}
    train(tmp_path, callback, model=SINGLE.student(), **one_step)
    first, second = callback.recorder.dynamics["loss"]
    np.testing.assert_allclose(first, by_hand(SINGLE), rtol=1e-4)
    assert np.nanmean(second) < np.nanmean(first)


def test_there_is_no_further_forward_pass(tmp_path, callback):
    model, passes = SINGLE.teacher(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    trainer = train(tmp_path, callback, model=model)
    assert len(passes) == trainer.state.global_step == 9


def test_evaluation_in_between_is_not_seen(tmp_path, callback):
    other = callback.number(SINGLE.rows().select(range(7, -1, -1)))  # the same numbers on other rows
    model = SINGLE.student()
    options = {"eval_strategy": "steps", "eval_steps": 1, "trainer_options": {"eval_dataset": other}}
    trainer = train(tmp_path, callback, model=model, learning_rate=0.0, **options)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 9
    np.testing.assert_allclose(callback.recorder.dynamics["loss"], np.tile(by_hand(SINGLE), (3, 1)), rtol=1e-4)


def test_nothing_is_left_on_the_model_and_it_may_be_trained_again(tmp_path, callback):
    trainer = train(tmp_path, callback)
    assert not trainer.model._forward_hooks
    assert not trainer.model._forward_pre_hooks
    first = {name: values.copy() for name, values in callback.recorder.dynamics.items()}
    trainer.train()
    assert callback.recorder.dynamics["loss"].shape == (3, 8)
    assert not same(first, callback.recorder.dynamics)


def test_a_run_that_broke_off_leaves_no_second_pair_of_hooks(tmp_path, callback):
    class Broken(Trainer):
        def training_step(self, *args, **kwargs):
            raise KeyboardInterrupt

    model = SINGLE.teacher()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callback, model=model, trainer_class=Broken)
    assert len(model._forward_hooks) == 1
    train(tmp_path, callback, model=model)
    assert not model._forward_hooks


def test_adapters_are_watched_too(tmp_path, callback):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(SINGLE.student(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2))
    still(tmp_path, callback=callback, model=model)
    np.testing.assert_allclose(callback.recorder.dynamics["loss"][0], by_hand(SINGLE), rtol=1e-4)


@pytest.mark.parametrize("teacher", [True, False])
@pytest.mark.parametrize("task", ["single_label_classification", "token_classification", "causal_lm", "seq2seq_lm"])
def test_a_distillation_trainer_is_watched_too(tmp_path, task, teacher):
    case, callback = TASK_CASES[task], TrainingDynamicsCallback(SCORES)
    options = {"teacher_model": case.teacher() if teacher else None, "args": None}
    options["args"] = arguments(tmp_path, DistillationTrainingArguments, learning_rate=0.0)
    still(tmp_path, case=case, callback=callback, trainer_class=DistillationTrainer, trainer_options=options)
    np.testing.assert_allclose(callback.recorder.dynamics["loss"][2], by_hand(case), rtol=2e-4, atol=2e-5)


# ---------------------------------------------------------------------- resuming
@pytest.mark.parametrize(
    ("step", "options"),
    [
        (2, {}),  # within the first epoch
        (3, {}),  # at its end
        (5, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}),  # within the second
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, step, options):
    whole, resumed = (TrainingDynamicsCallback(SCORES) for _ in range(2))
    saving = {"save_strategy": "steps", "save_steps": step, **options}
    train(tmp_path / "whole", whole, **saving)
    train(tmp_path / "resumed", resumed, resume=tmp_path / "whole" / f"checkpoint-{step}", **saving)
    assert same(whole.recorder.dynamics, resumed.recorder.dynamics)


def test_a_checkpoint_that_was_moved_is_to_be_named(tmp_path, callback):
    train(tmp_path / "a", callback, save_strategy="steps", save_steps=3)
    moved = shutil.move(tmp_path / "a" / "checkpoint-3", tmp_path / "moved")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(
        ShrinkError, match="`resume_from_checkpoint` must hold the training_dynamics.safetensors of st"
    ):
        train(tmp_path / "b", TrainingDynamicsCallback(SCORES), resume=moved)
    resumed = TrainingDynamicsCallback(SCORES, checkpoint=moved)
    train(tmp_path / "b", resumed, resume=moved)
    assert same(resumed.recorder.dynamics, callback.recorder.dynamics)


def test_the_checkpoint_of_another_run_in_the_same_place_is_not_taken(tmp_path, callback):
    saving = {"save_strategy": "steps", "save_steps": 3}
    train(tmp_path / "a", callback, **saving)
    train(tmp_path / "b", TrainingDynamicsCallback(SCORES), seed=7, **saving)
    resumed = TrainingDynamicsCallback(SCORES)
    train(tmp_path / "b", resumed, resume=tmp_path / "a" / "checkpoint-3", **saving)
    assert same(resumed.recorder.dynamics, callback.recorder.dynamics)


@pytest.mark.parametrize("scores", [["el2n"], ["el2n", "variability"]])
def test_a_checkpoint_with_other_scores_is_refused(tmp_path, callback, scores):
    train(tmp_path, callback, save_strategy="steps", save_steps=3)
    with pytest.raises(ShrinkError, match="`resume_from_checkpoint` must hold .* of 8 rows"):
        train(tmp_path, TrainingDynamicsCallback(scores), resume=tmp_path / "checkpoint-3")


# ---------------------------------------------------------------------- rows
def test_numbers_survive_formats_and_transforms(callback):
    rows = SINGLE.rows()
    assert callback.number(rows.with_format("torch", columns=["input_ids"]))[2].keys() == {
        "input_ids",
        *only(callback),
    }
    shown = callback.number(rows.with_transform(lambda batch: {**batch, "twice": [2 * x for x in batch["labels"]]}))
    assert shown[1]["twice"] == 2
    assert shown[1][only(callback)[0]] == 1
    assert callback.number(rows.with_format("numpy")).format["type"] == "numpy"


def only(callback):
    rows = SINGLE.rows()
    return [name for name in callback.number(rows).column_names if name not in rows.column_names]


def test_rows_behind_an_indices_mapping_are_numbered_as_they_are_shown(tmp_path, callback):
    rows = SINGLE.rows().select([5, 0, 1, 7])
    still(tmp_path, callback=callback, trainer_options={"train_dataset": callback.number(rows)})
    expected = by_hand(SINGLE)[[5, 0, 1, 7]]
    np.testing.assert_allclose(callback.recorder.dynamics["loss"][1], expected, rtol=1e-4)


def test_the_numbers_stay_where_columns_are_removed(callback):
    numbered = callback.number(SINGLE.rows())
    column = only(callback)
    left = numbered.remove_columns(["labels", *column]).remove_columns(column[0])
    assert set(left.column_names) == {*SINGLE.rows().column_names, *column} - {"labels"}


def test_a_row_that_comes_twice_keeps_its_larger_value():
    recorder = Recorder(torch.nn.Linear(1, 1), ["loss"], 3, shifted=False)
    recorder.begin_epoch(0)
    for ids, values in (([0, 0, 1], [1.0, 4.0, 2.0]), ([1, 0], [5.0, 3.0])):
        recorder._waiting.append((0, torch.tensor(ids), {"loss": torch.tensor(values)}))
    recorder.flush()
    assert np.array_equal(recorder.dynamics["loss"], [[4.0, 5.0, np.nan]], equal_nan=True)


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize("scores", ["el2n", []])
def test_scores_are_a_list_of_names(scores):
    with pytest.raises(ShrinkError, match="`scores` must be a list of names"):
        TrainingDynamicsCallback(scores)


def test_an_unknown_score_is_refused_with_the_closest():
    with pytest.raises(ShrinkError, match="`scores` must be one of .* got 'el2m'. Did you mean 'el2n'"):
        TrainingDynamicsCallback(["el2m"])


def test_scores_before_training_are_refused(callback):
    with pytest.raises(ShrinkError, match="`TrainingDynamicsCallback` must be there when training begins"):
        callback.scores()


def test_rows_that_are_not_numbered_are_refused(tmp_path, callback):
    with pytest.raises(ShrinkError, match="`train_dataset` must be numbered before training"):
        train(tmp_path, None, trainer_options={"callbacks": [callback]})
    numbered = callback.number(SINGLE.rows())
    lost = numbered.filter(lambda row: True).select_columns(SINGLE.rows().column_names)
    with pytest.raises(ShrinkError, match="`train_dataset` must be what callback.number"):
        train(tmp_path, callback, trainer_options={"train_dataset": lost})


def test_a_model_called_without_numbers_is_refused(tmp_path, callback):
    class Own(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            kept = {name: value for name, value in inputs.items() if not name.startswith("hf_shrink")}
            return super().compute_loss(model, kept, return_outputs, num_items_in_batch)

    with pytest.raises(ShrinkError, match="`train_dataset` must be what callback.number"):
        train(tmp_path, callback, trainer_class=Own)


@pytest.mark.parametrize("task", ["regression", "question_answering", "feature_extraction"])
def test_tasks_without_classes_are_refused(tmp_path, callback, task):
    with pytest.raises(
        ShrinkError, match=f"`model` must answer with classes or tokens to score rows, got one for {task}"
    ):
        train(tmp_path, callback, case=TASK_CASES[task])


def test_batches_without_labels_are_refused(tmp_path, callback):
    class Unlabelled(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(**inputs).logits.sum()

    rows = callback.number(SINGLE.rows().remove_columns("labels"))
    with pytest.raises(ShrinkError, match="`train_dataset` must have labels"):
        train(tmp_path, callback, trainer_class=Unlabelled, trainer_options={"train_dataset": rows})


def test_packed_rows_are_refused(tmp_path, callback):
    def pack(rows):
        batch = SINGLE.collator()(rows)
        return {name: tensor[:1] for name, tensor in batch.items()}

    with pytest.raises(ShrinkError, match="`data_collator` must keep one line a row, got 1 of 3"):
        train(tmp_path, callback, trainer_options={"data_collator": pack})


def test_outputs_without_logits_are_refused(tmp_path, callback):
    with pytest.raises(ShrinkError, match="`model` must answer with `logits`, got a tuple"):
        train(tmp_path, callback, model=SINGLE.teacher(return_dict=False))


@pytest.mark.parametrize(("setting", "value"), [("torch_compile", True), ("n_gpu", 2)])
def test_runs_that_cannot_be_watched_are_refused(tmp_path, callback, setting, value):
    from hf_shrink.dataset_distillation.dynamics_callback import _check_run

    args = arguments(tmp_path)
    args.__dict__["_n_gpu" if setting == "n_gpu" else setting] = value
    with pytest.raises(ShrinkError, match=f"`{setting}` must be"):
        _check_run(args, "causal_lm", 8)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (SINGLE.rows().to_iterable_dataset(), "`dataset` must be a Dataset, got IterableDataset"),
        ([{"input_ids": [1]}], "`dataset` must be a Dataset, got list"),
        (SINGLE.rows().select([]), "`dataset` must have rows without numbers, got none"),
        (TrainingDynamicsCallback(["el2n"]).number(SINGLE.rows()), "got numbered rows"),
    ],
)
def test_what_cannot_be_numbered_is_refused(callback, rows, error):
    with pytest.raises(ShrinkError, match=error):
        callback.number(rows)


def test_many_batches_are_fetched_before_they_fill_the_memory(tmp_path, callback, monkeypatch):
    fetched, flush = [], Recorder.flush

    def counted(recorder):
        fetched.append(len(recorder._waiting))
        flush(recorder)

    monkeypatch.setattr("hf_shrink.dataset_distillation.recorder.AT_ONCE", 2)
    monkeypatch.setattr(Recorder, "flush", counted)
    train(tmp_path, callback)
    assert fetched == [2, 2, 2, 2, 1]


@pytest.mark.slow
def test_two_processes_bring_together_what_each_has_seen(tmp_path):
    """Eight rows for two processes of three: the last step is filled up with rows that were there before."""
    run_processes(2, "tests.dataset_distillation.score_in_processes", tmp_path)
    found = {path.stem: dict(np.load(path)) for path in tmp_path.glob("*.npz")}
    np.testing.assert_allclose(found["still-0"]["loss"], np.tile(by_hand(SINGLE), (3, 1)), rtol=1e-4)
    for run in ("still", "whole", "resumed"):
        assert same(found[f"{run}-0"], found[f"{run}-1"])
    assert same(found["whole-0"], found["resumed-0"])
    assert not same(found["still-0"], found["whole-0"])
