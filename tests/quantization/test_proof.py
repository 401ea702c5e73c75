import warnings

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import proof
from hf_shrink.quantization.divergence import answers_of
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.proof import ROWS, agreement, check_answers, check_reload, prove
from hf_shrink.quantization.traced import run_float, sample_rows
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier

TASK = "single_label_classification"


@pytest.fixture
def model():
    return to_float(tiny_bert_classifier(2, num_hidden_layers=1))


@pytest.fixture
def job(model, tmp_path):
    model.save_pretrained(tmp_path)
    return Job(model, TASK, tmp_path, lambda stage: None)


@pytest.fixture
def outputs(model):
    return [output for seed in range(4) for output in run_float(model, sample_rows(model, 1, 8, seed=seed), TASK)]


def test_what_loads_elsewhere_is_proved(job):
    found = prove(job, Made({}), "copy")
    assert (found["inputs"], found["rows"], found["agreement"]) == ("random tokens", ROWS, 1.0)
    assert found["relative_error"] < 1e-5
    assert found["reload_difference"] < 1e-5


def test_files_that_are_not_what_was_made_are_found(job, monkeypatch):
    monkeypatch.setattr(proof, "fresh_answers", lambda folder, rows, *_: [job.model(**row) for row in rows])
    made = tiny_bert_classifier(2, num_hidden_layers=1)
    with torch.no_grad():
        made.classifier.weight *= 1.1
    with pytest.raises(ShrinkError, match="`model` must answer alike before and after it is loaded again, but after"):
        prove(job, Made({}, model=made), "copy")


def test_a_generator_that_fails_on_single_tokens_is_found(tmp_path, monkeypatch):
    model = to_float(tiny_model("llama", num_hidden_layers=1))
    model.save_pretrained(tmp_path)
    job = Job(model, "causal_lm", tmp_path, lambda stage: None)
    assert prove(job, Made({}), "copy")["rows"] == 2 * ROWS

    def broken(folder, rows, *_):
        return [{"logits": answers_of(model, row, TASK)[0] * (row["input_ids"].shape[1] > 1)} for row in rows]

    monkeypatch.setattr(proof, "fresh_answers", broken)
    with pytest.raises(ShrinkError, match="`model` must answer as before after copy, but its outputs are off by 100%"):
        prove(job, Made({}), "copy")


def test_padding_of_calibration_rows_is_not_held_to_anything(tmp_path, monkeypatch):
    model = to_float(tiny_model("llama", num_hidden_layers=1))
    model.save_pretrained(tmp_path)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]])
    batch = {"input_ids": torch.arange(5, 20).view(3, 5), "attention_mask": mask}
    asked = []

    def remember(folder, rows, *_):
        asked.extend(rows)
        return [{"logits": answers_of(model, row, "causal_lm")[0]} for row in rows]

    monkeypatch.setattr(proof, "fresh_answers", remember)
    job = Job(model, "causal_lm", tmp_path, lambda stage: None, calibration=(batch,))
    prove(job, Made({}), "copy")
    ids = [row["input_ids"].tolist() for row in asked]
    assert ids == [[[5, 6, 7, 8, 9]], [[12, 13, 14]], [[15, 16]], [[5]], [[12]], [[15]]]  # none beyond their ranges
    assert all(row["attention_mask"].all() for row in asked)


@pytest.mark.parametrize(("scale", "told"), [(1.25, True), (1.05, False)])
def test_answers_that_are_far_off_are_told(job, monkeypatch, scale, told):
    def shifted(folder, rows, *_):
        return [{"logits": scale * answers_of(job.model, row, TASK)[0]} for row in rows]

    monkeypatch.setattr(proof, "fresh_answers", shifted)
    monkeypatch.setattr(proof, "check_reload", lambda *_: 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prove(job, Made({}), "copy")
    said = "After copy the answers of BertForSequenceClassification to random tokens are off by 25%. Measure it"
    assert any(str(warning.message).startswith(said) for warning in caught) == told


def test_the_error_is_relative(outputs):
    assert check_answers([1.25 * output for output in outputs], outputs, "onnx-int8") == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("change", [lambda v: v * float("nan"), lambda v: -v, torch.zeros_like, lambda v: v + 1e9])
def test_no_artifact_without_proof(outputs, change):
    with pytest.raises(ShrinkError, match="`model` must answer as before after onnx-int8, but its outputs are off by"):
        check_answers([change(output) for output in outputs], outputs, "onnx-int8")


def test_each_runtime_has_its_own_tolerance(outputs):
    largest = max(output.abs().max() for output in outputs)
    moved = [output + 1e-3 * largest for output in outputs]
    assert check_reload(moved, outputs, "transformers", "bnb-nf4") == pytest.approx(1e-3, rel=0.01)
    with pytest.raises(ShrinkError, match="differ by"):
        check_reload(moved, outputs, "onnx", "onnx-int8")
    with pytest.raises(ShrinkError, match="differ by"):
        check_reload([output * float("nan") for output in outputs], outputs, "transformers", "bnb-nf4")


def test_agreement_is_what_the_task_decides():
    before = [torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 1.0]])]
    after = [torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, -1.0]])]
    assert agreement(after, before, TASK) == 1.0
    assert agreement(after, before, "multi_label_classification") == 0.75
    assert agreement(after, before, "regression") is None
