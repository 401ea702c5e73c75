import pytest
import torch
from transformers.modeling_outputs import ModelOutput

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.proof import ROWS, prove
from tests.models import tiny_bert_classifier


@pytest.fixture
def model():
    return to_float(tiny_bert_classifier(2, num_hidden_layers=1))


def changed(model, change):
    """Stands for what was loaded from disk: the model's own answer, changed."""

    def answer(**row):
        with torch.no_grad():
            return ModelOutput(logits=change(model(**row).logits))

    return answer


def test_the_same_answer_has_no_error(model):
    proof = prove(changed(model, lambda logits: logits), model, "single_label_classification", "onnx-int8")
    assert proof == {"inputs": "random tokens", "rows": ROWS, "relative_error": 0.0, "agreement": 1.0}


def test_the_error_is_relative(model):
    proof = prove(changed(model, lambda logits: 1.25 * logits), model, "single_label_classification", "onnx-int8")
    assert proof["relative_error"] == pytest.approx(0.25, abs=1e-5)
    assert proof["agreement"] == 1.0  # scaled logits choose the same labels


def test_agreement_is_what_the_task_decides(model):
    with torch.no_grad():
        model.classifier.bias.copy_(
            torch.tensor([30.0, 0.2])
        )  # the first label is always far above 0 and above the other
    shift = changed(model, lambda logits: logits - torch.tensor([0.0, 10.0]))  # the second label falls below 0
    rows = torch.cat([changed(model, lambda v: v)(input_ids=torch.full((1, 4), i)).logits for i in range(5, 9)])
    assert (rows[:, 0] > 20).all()
    assert prove(shift, model, "single_label_classification", "m")["agreement"] == 1.0
    assert prove(shift, model, "multi_label_classification", "m")["agreement"] < 1.0
    assert prove(shift, model, "regression", "m")["agreement"] is None


@pytest.mark.parametrize("change", [lambda v: v * float("nan"), lambda v: -v, torch.zeros_like, lambda v: v + 1e9])
def test_no_artifact_without_proof(model, change):
    with pytest.raises(ShrinkError, match="`model` must answer as before after onnx-int8, but its outputs are off by"):
        prove(changed(model, change), model, "single_label_classification", "onnx-int8")
