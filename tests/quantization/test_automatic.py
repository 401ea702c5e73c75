import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import QUANTIZERS, automatic
from hf_shrink.quantization.automatic import PREFERENCES, choose_method, usable_methods

CLASSIFIER, GENERATOR = "single_label_classification", "causal_lm"


@pytest.fixture
def everything(monkeypatch):
    """All that is preferred is installed and registered, on a machine without a GPU."""
    names = {preference.method for preference in PREFERENCES}
    monkeypatch.setattr(automatic, "usable_methods", lambda task, calibrated: sorted(names))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_fastest_that_needs_no_rows(everything):
    assert choose_method(CLASSIFIER, calibrated=False).reason


def test_a_gpu_reads_a_generator_in_four_bits(everything, monkeypatch):
    assert not choose_method(GENERATOR, calibrated=False).method.startswith("bnb")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_method(GENERATOR, calibrated=False).method == "bnb-nf4"
    assert choose_method(CLASSIFIER, calibrated=False).method == "bnb-int8"


def test_only_what_is_installed_is_taken(monkeypatch):
    monkeypatch.setattr(automatic, "find_spec", lambda name: None if name == "openvino" else object())
    assert not [name for name in usable_methods(CLASSIFIER, calibrated=True) if name.startswith("openvino")]
    monkeypatch.setattr(automatic, "find_spec", lambda name: None)
    with pytest.raises(ShrinkError, match=r"`method` 'auto' must find one of \[.*installed, but none is.*pip install"):
        choose_method(CLASSIFIER, calibrated=True)


def test_rows_are_asked_for_where_a_method_reads_some():
    without, given = (set(usable_methods(CLASSIFIER, calibrated=rows)) for rows in (False, True))
    assert without <= given
    assert all(QUANTIZERS[name].facts["calibrated"] for name in given - without)
    assert "onnx-int8" in without


def test_a_task_that_nothing_serves():
    with pytest.raises(ShrinkError, match="`task` must be one that a method serves, got 'audio_classification'"):
        choose_method("audio_classification", calibrated=True)
