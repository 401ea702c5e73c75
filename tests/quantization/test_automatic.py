from dataclasses import replace

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import QUANTIZERS, automatic
from hf_shrink.quantization.automatic import PREFERENCES, choose_method, usable_methods

CLASSIFIER, GENERATOR = "single_label_classification", "causal_lm"


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def everything(monkeypatch):
    """All libraries are there, whatever this column installs."""
    monkeypatch.setattr(automatic, "find_spec", lambda name: object())


def test_every_preference_is_registered():
    assert {preference.method for preference in PREFERENCES} <= set(QUANTIZERS)


def test_a_cpu_gets_what_is_fast_there(no_gpu):
    assert choose_method(CLASSIFIER, calibrated=False).method == "onnx-int8"


@pytest.mark.parametrize(
    ("machine", "calibrated", "method"),
    [
        ("x86_64", True, "openvino-int8-static"),
        ("AMD64", True, "openvino-int8-static"),  # as Windows calls it
        ("x86_64", False, "onnx-int8"),  # no rows to find ranges on
        ("arm64", True, "onnx-int8"),  # where OpenVINO's integers are not faster
    ],
)
def test_rows_and_an_x86_processor_get_the_fastest(no_gpu, everything, monkeypatch, machine, calibrated, method):
    monkeypatch.setattr(automatic.platform, "machine", lambda: machine)
    assert choose_method(CLASSIFIER, calibrated=calibrated).method == method


def test_a_generator_keeps_its_activations(no_gpu, everything, monkeypatch):
    assert choose_method(GENERATOR, calibrated=True).method == "openvino-int8"
    monkeypatch.setattr(automatic, "find_spec", lambda name: None if name == "openvino" else object())
    assert choose_method(GENERATOR, calibrated=True).method == "onnx-int8-block"


def test_a_gpu_reads_a_generator_in_four_bits(no_gpu, everything, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_method(GENERATOR, calibrated=False).method == "bnb-nf4"
    assert choose_method(CLASSIFIER, calibrated=False).method == "bnb-int8"


def test_only_what_is_installed_is_taken(no_gpu, monkeypatch):
    monkeypatch.setattr(automatic, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert not [name for name in usable_methods(CLASSIFIER) if name.startswith(("onnx", "openvino"))]
    assert choose_method(CLASSIFIER, calibrated=False).method == "bnb-int8"
    monkeypatch.setattr(automatic, "find_spec", lambda name: None)
    with pytest.raises(ShrinkError, match=r"`method` 'auto' must find one of \[.*installed, but none is.*pip install"):
        choose_method(CLASSIFIER, calibrated=True)


def test_rows_are_asked_for_where_a_method_reads_some(monkeypatch):
    plain = QUANTIZERS["onnx-int8"]
    reading = replace(plain, name="reading", facts={**plain.facts, "calibrated": True})
    monkeypatch.setattr(automatic, "QUANTIZERS", {"onnx-int8": plain, "reading": reading})
    assert usable_methods(CLASSIFIER, calibrated=True) == ["onnx-int8", "reading"]
    assert usable_methods(CLASSIFIER, calibrated=False) == ["onnx-int8"]
    reading.facts["rows_optional"] = True
    assert usable_methods(CLASSIFIER, calibrated=False) == ["onnx-int8", "reading"]


def test_a_task_that_nothing_serves():
    with pytest.raises(ShrinkError, match="`task` must be one that a method serves, got 'audio_classification'"):
        choose_method("audio_classification", calibrated=True)
