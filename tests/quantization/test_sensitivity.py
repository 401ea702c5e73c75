"""quantization_sensitivity: one module at a time, the worst first, and the model as it was."""

import json
import math

import pytest
import torch
from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.divergence import answers_of, diverge
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.sensitivity import SensitivityMap, measure_sensitivity, quantization_sensitivity
from hf_shrink.quantization.simulation import stored_weight
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.quantization.outliers import with_outliers
from tests.quantization.texts import TEXTS, inputs

READ = {"processing_class": tiny_tokenizer()}
ROWS = Dataset.from_dict({"text": TEXTS * 4, "label": [0, 1, 2, 0] * 4})
CLASSES = "single_label_classification"
WEIGHTS_ONLY = Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations=None)
BAD = "bert.encoder.layer.1.intermediate.dense"

pytestmark = pytest.mark.filterwarnings("ignore:Calibration takes all")


def test_a_divergence_is_that_of_the_module_quantized_alone():
    model = tiny_bert_classifier(num_hidden_layers=2)
    found = measure_sensitivity(model, WEIGHTS_ONLY, [inputs()], CLASSES)
    expected = answers_of(model, inputs(), CLASSES)
    other = tiny_bert_classifier(num_hidden_layers=2)
    module = other.get_submodule(BAD)
    with torch.no_grad():
        module.weight.copy_(stored_weight(module, WEIGHTS_ONLY))
    by_hand = diverge(expected, answers_of(other, inputs(), CLASSES), inputs(), CLASSES).mean
    assert found[BAD] == pytest.approx(by_hand, rel=1e-3)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert len(found) == 2 * 6 + 3 + 2  # layers, embeddings, pooler and head


def test_a_module_with_outliers_comes_first():
    model = with_outliers(tiny_bert_classifier(num_hidden_layers=2), BAD)
    found = quantization_sensitivity(model, "onnx-int8", ROWS, **READ)
    values = list(found.divergences.values())
    assert found.modules[0] == BAD
    assert values[0] > 5 * values[1]
    plain = quantization_sensitivity(tiny_bert_classifier(num_hidden_layers=2), "onnx-int8", ROWS, **READ)
    assert plain.divergences[BAD] < values[0] / 5


def test_the_model_is_as_before():
    model = tiny_bert_classifier(num_hidden_layers=1).to(torch.bfloat16)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    first, again = (quantization_sensitivity(model, "onnx-int8", ROWS, **READ) for _ in range(2))
    assert first == again
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_weights_are_put_back_after_an_error(monkeypatch):
    model = tiny_bert_classifier(num_hidden_layers=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []

    def fails_in_the_end(*args):
        calls.append(sum(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answers_of(*args)

    monkeypatch.setattr("hf_shrink.quantization.sensitivity.answers_of", fails_in_the_end)
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(model, WEIGHTS_ONLY, [inputs()], CLASSES)
    assert calls == [0, 1, 1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "head", "unit"),
    [("llama", "CausalLM", "KL divergence (nats a token)"), ("bert", "", "mean squared difference")],
)
def test_language_models_and_embeddings(family, head, unit):
    model = tiny_model(family, head, num_hidden_layers=1)
    found = quantization_sensitivity(model, "onnx-int8", ROWS, **READ)
    assert found.unit == unit
    assert all(
        value > 0 for name, value in found.divergences.items() if "token_type" not in name and "pooler" not in name
    )


SAVED = SensitivityMap("onnx-int8", CLASSES, "KL divergence (nats a row)", {"b": 0.5, "a": 0.25}, "tickets", 128, "ab")


def test_a_map_is_saved_and_read_again(tmp_path):
    read = SensitivityMap.from_json(SAVED.to_json(tmp_path / "map.json"))
    assert read == SAVED
    assert read.modules == ("b", "a")
    for content in ("[]", "{}", "nothing", json.dumps({"method": "x"})):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ShrinkError, match=r"`path` must be a file that SensitivityMap.to_json\(\) wrote"):
            SensitivityMap.from_json(tmp_path / "other.json")
    with pytest.raises(ShrinkError, match="`path` must be a file"):
        SensitivityMap.from_json(tmp_path / "nowhere.json")


def test_a_map_says_that_it_is_simulated(tmp_path):
    text = SAVED.to_markdown()
    assert "| `b` | 0.5 |" in text
    assert "128 rows of tickets" in text
    assert "simulated in PyTorch with the number format of onnx-int8" in text
    assert SAVED.plot(tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    drawn = SAVED.plot(tmp_path / "bars.svg").read_text()
    assert "One module in onnx-int8, simulated" in drawn


def test_modules_that_break_the_model_come_first(monkeypatch):
    broken = iter([torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[math.nan, 0.0]])])
    monkeypatch.setattr("hf_shrink.quantization.sensitivity.answers_of", lambda *_: (next(broken),))
    pair = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert list(measure_sensitivity(pair, WEIGHTS_ONLY, [{}], CLASSES)) == ["1", "0"]


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ShrinkError, match=r"`method` must be one of \[.*'onnx-int8'"):
        quantization_sensitivity(tiny_bert_classifier(), "onnx-int9", ROWS)
    with pytest.raises(ShrinkError, match="`model` must be a float transformers model, got Linear"):
        quantization_sensitivity(torch.nn.Linear(2, 2), "onnx-int8", ROWS)
