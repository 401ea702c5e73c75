import os
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import count_macs, count_parameters, measure, size_on_disk
from hf_shrink.evaluation.memory import CLEAR, measure_peak_memory
from hf_shrink.inputs import load_model
from tests.evaluation.builders import classifier

FAST = {"runs": 2, "peak_memory": False, "sequence_length": 16, "threads": 1}


class Folder:
    """An artifact, as techniques hand it over."""

    def __init__(self, path):
        self.path = path

    def load(self):
        return load_model(self.path)


def test_instance_folder_and_artifact_measure_alike(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path / "model")
    own, saved, artifact = (
        measure(source, **FAST) for source in (model, tmp_path / "model", Folder(tmp_path / "model"))
    )
    assert own.size_bytes == saved.size_bytes == artifact.size_bytes == size_on_disk(tmp_path / "model")
    assert own.parameters == saved.parameters == count_parameters(model)
    assert own.macs == saved.macs == count_macs(model, sequence_length=16)
    assert own.macs_note is None
    assert own.peak_memory_bytes is None
    assert (own.latency.runs, own.latency.sequence_length, own.latency.threads) == (2, 16, 1)


def test_an_instance_is_measured_as_it_is_now(tmp_path):
    classifier().save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model").half()
    assert measure(model, **FAST).size_bytes < 0.7 * measure(tmp_path / "model", **FAST).size_bytes


def test_graph_reports_its_source(graph_folder):
    model, graph = classifier(), measure(graph_folder, **FAST)
    assert graph.size_bytes == (graph_folder / "model.onnx").stat().st_size
    assert (graph.parameters, graph.macs) == (count_parameters(model), count_macs(model, sequence_length=16))
    assert graph.macs_note == "of the float source"


def test_what_cannot_be_saved_has_no_size_and_an_adapter_is_refused():
    class Wrapped(torch.nn.Module):
        main_input_name = "input_ids"

        def __init__(self):
            super().__init__()
            self.inner = classifier()
            self.config = self.inner.config

        def forward(self, **inputs):
            return self.inner(**inputs)

    with pytest.raises(ShrinkError, match="`inputs` must be given for a Wrapped"):
        measure(Wrapped(), **FAST)
    adapted = get_peft_model(classifier(), LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    with pytest.raises(
        ShrinkError, match="`model` must be saved whole to be measured, got PeftModel.*merge_and_unload"
    ):
        measure(adapted, **FAST)


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="no /proc that tells the peak")
def test_peak_memory_holds_the_weights_and_not_the_libraries(tmp_path):
    classifier(vocab_size=60_000, hidden_size=256).save_pretrained(tmp_path)  # 61 MB, of which a pass reads a few rows
    peak = measure_peak_memory(tmp_path, sequence_length=16)
    assert size_on_disk(tmp_path) < peak < 2.5 * size_on_disk(tmp_path)


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="no /proc that tells the peak")
def test_peak_memory_of_a_graph_is_taken_alike(graph_folder):
    assert 0 < measure_peak_memory(graph_folder / "model.onnx", sequence_length=16) < 60e6  # the runtime takes more


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="no /proc that tells the peak")
def test_a_process_that_fails_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(UserWarning, match="The peak memory of model was not measured: no message"):
        assert measure_peak_memory(tmp_path / "model") is None
