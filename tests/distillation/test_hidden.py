"""The hidden term: which layers, which value, and projections that train beside the student and leave no trace."""

import pytest
import torch
from safetensors.torch import load_file

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from hf_shrink.distillation.hidden import layer_pairs
from hf_shrink.errors import ShrinkError
from tests.distillation.gradients import assert_same_gradient, in_processes
from tests.distillation.hidden_step import NARROW, WEIGHT, gradient, projections
from tests.distillation.tasks import TASK_CASES

CASE = TASK_CASES["single_label_classification"]


@pytest.mark.parametrize(
    ("layer_map", "depths", "pairs"),
    [
        ("uniform", (2, 6), ((0, 2), (1, 5))),
        ("uniform", (3, 12), ((0, 3), (1, 7), (2, 11))),
        ("last", (2, 6), ((1, 5),)),
        ("skip", (6, 12), ((0, 1), (1, 3), (2, 5), (3, 7), (4, 9))),
        ("0:0,1:5", (2, 6), ((0, 0), (1, 5))),
        ("-1:-1", (2, 6), ((1, 5),)),
    ],
)
def test_layers_are_paired(layer_map, depths, pairs):
    assert layer_pairs(layer_map, *depths) == pairs


@pytest.mark.parametrize("layer_map", ["uniforme", "0:6", "2:0", "0", "0:1:2", "", "a:b"])
def test_a_layer_that_is_not_there_is_refused(layer_map):
    with pytest.raises(ShrinkError, match="`layer_map`"):
        layer_pairs(layer_map, 2, 6)


def test_skipping_the_only_layer_is_refused():
    with pytest.raises(ShrinkError, match="`layer_map`"):
        layer_pairs("skip", 1, 6)


def by_hand(pooled):
    """Weight · mean over rows of the mean over tokens (or of [CLS] alone), for the last layers of equal width."""
    student, teacher, collate = CASE.student().train(), CASE.teacher().eval(), CASE.collator()
    total = 0.0
    for row in CASE.rows():
        inputs = {k: v for k, v in collate([row]).items() if k != "labels"}
        with torch.no_grad():
            theirs = teacher(**inputs, output_hidden_states=True).hidden_states[-1]
        own = student(**inputs, output_hidden_states=True).hidden_states[-1]
        tokens = slice(0, 1) if pooled else slice(None)
        total = total + ((own - theirs) ** 2)[:, tokens].mean()
    (WEIGHT * total / len(CASE.rows())).backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pooling", [None, "cls"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (1, 8)])
def test_gradient_is_the_one_written_by_hand(tmp_path, pooling, batch_size, accumulation):
    with_term, trainer = gradient(tmp_path, batch_size, accumulation, hidden_weight=WEIGHT, pooling=pooling)
    without, _ = gradient(tmp_path, batch_size, accumulation)
    expected = by_hand(pooled=pooling is not None)
    difference = {name: with_term[name] - without[name] for name in expected}
    assert_same_gradient(difference, expected, tolerance=2e-6)
    assert max(value.abs().max() for value in expected.values()) > 1e-2
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["hidden_loss"] > 0
    assert log["loss"] == pytest.approx(
        0.7 * log["kd_loss"] + 0.3 * log["ce_loss"] + WEIGHT * log["hidden_loss"], rel=1e-4
    )


@pytest.mark.parametrize("accumulation", [2, 8])
def test_projections_get_the_same_gradient_however_rows_are_spread(tmp_path, accumulation):
    whole = gradient(tmp_path, 8, 1, hidden_weight=WEIGHT, width=NARROW)[0]
    spread = gradient(tmp_path, 8 // accumulation, accumulation, hidden_weight=WEIGHT, width=NARROW)[0]
    assert any(name.startswith("projection") for name in whole)
    assert_same_gradient(whole, spread)


@pytest.mark.slow
def test_projections_get_the_same_gradient_in_two_processes(tmp_path):
    whole = gradient(tmp_path / "whole", 8, 1, hidden_weight=WEIGHT, width=NARROW)[0]
    (shared,) = in_processes(2, tmp_path, 2, 2, module="tests.distillation.hidden_step").values()
    assert_same_gradient(whole, shared)


def test_projections_are_trained_and_not_saved(tmp_path):
    before = [
        p.detach().clone() for p in projections(gradient(tmp_path, 8, 1, hidden_weight=1.0, width=NARROW, lr=0)[1])
    ]
    _, trainer = gradient(tmp_path, 8, 1, hidden_weight=1.0, width=NARROW, lr=1e-2)
    assert all((a != b).any() for a, b in zip(before, projections(trainer), strict=True))
    trainer.save_model(str(tmp_path / "saved"))
    plain = {name for name, _ in CASE.student(hidden_size=NARROW).named_parameters()}
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == plain


def test_a_term_on_hidden_states_brings_them_nearer(tmp_path):
    losses = []
    for weight in (1e-6, 10.0):
        _, trainer = gradient(tmp_path, 8, 1, hidden_weight=weight, width=NARROW, lr=1e-2, max_steps=30)
        losses.append([entry["hidden_loss"] for entry in trainer.state.log_history if "hidden_loss" in entry][-1])
    assert losses[1] < 0.75 * losses[0]


REFUSED = {
    "encoder-decoder": ("seq2seq_lm", {"hidden_weight": 1.0}, "`hidden_weight`"),
    "unknown map": ("causal_lm", {"hidden_weight": 1.0, "layer_map": "first"}, "`layer_map`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_before_any_work(tmp_path, case):
    task, options, name = REFUSED[case]
    args = DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **options)
    with pytest.raises(ShrinkError, match=name):
        DistillationTrainer(model=TASK_CASES[task].student(), teacher_model=TASK_CASES[task].teacher(), args=args)
