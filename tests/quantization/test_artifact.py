import shutil

import pytest
import torch
from huggingface_hub import HfApi

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import ShrinkReport
from hf_shrink.quantization import QuantizedArtifact
from tests.evaluation.example import example_report
from tests.quantization.texts import logits


@pytest.fixture
def own(artifact, tmp_path):
    """A copy that a test may write to."""
    return QuantizedArtifact.from_pretrained(shutil.copytree(artifact.path, tmp_path / "own"))


@pytest.fixture
def repo_id(hub):
    yield "user/tickets-int8"
    HfApi().delete_repo("user/tickets-int8", missing_ok=True)


def test_it_is_found_again(artifact):
    again = QuantizedArtifact.from_pretrained(str(artifact.path))
    assert again == artifact
    assert again.size_bytes == (artifact.path / "model.onnx").stat().st_size
    assert torch.equal(logits(again.load()), logits(artifact.load()))


def test_it_stands_in_for_a_model(artifact):
    loaded = artifact.load()
    assert loaded.config.num_labels == 3
    assert loaded.eval() is loaded.to("cpu") is loaded


def test_a_report_is_set_and_found(own):
    assert own.report is None
    example_report().to_json(own.path / "shrink_report.json")
    assert QuantizedArtifact.from_pretrained(own.path).report == example_report()


def test_push_and_pull(own, repo_id):
    own.report = example_report()
    url = own.push_to_hub(repo_id, commit_message="int8")
    assert url.startswith("http")
    pulled = QuantizedArtifact.from_pretrained(repo_id)
    assert torch.equal(logits(pulled.load()), logits(own.load()))
    assert isinstance(pulled.report, ShrinkReport)
    assert pulled.report == own.report
    assert pulled.record == own.record
    assert pulled.method == "onnx-int8"
    card = (pulled.path / "README.md").read_text()
    assert "base_model_relation: quantized" in card


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ShrinkError, match="`path_or_repo` must hold a quantization.json"):
        QuantizedArtifact.from_pretrained(tmp_path)
    with pytest.raises(ShrinkError, match="`path_or_repo` must hold a quantization.json"):
        QuantizedArtifact.from_pretrained(tmp_path / "nowhere")
