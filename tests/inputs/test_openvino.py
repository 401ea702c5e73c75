import numpy as np
import pytest
import torch

from hf_shrink import measure
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import OpenVinoModel, find_task, load_model
from tests.models import export_onnx, tiny_bert_classifier, tiny_tokenizer

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    exported = export_onnx(tiny_bert_classifier(), tiny_tokenizer(), tmp_path_factory.mktemp("export") / "tickets")
    graph = openvino.Core().read_model(next(exported.glob("*.onnx")))
    for file in exported.glob("*.onnx*"):
        file.unlink()
    openvino.save_model(graph, exported / "openvino_model.xml", compress_to_fp16=False)
    return exported


@pytest.fixture
def batch():
    return tiny_tokenizer()(["my card is lost please help", "cash", "top up"], padding=True, return_tensors="pt")


def test_graph_gives_the_logits_of_its_source(folder, batch):
    loaded = load_model(folder)
    with torch.no_grad():
        expected = tiny_bert_classifier()(**batch).logits
    assert isinstance(loaded, OpenVinoModel)
    first = loaded(**batch, labels=torch.tensor([0, 1, 2])).logits
    assert (first - expected).abs().max() < 1e-4
    assert find_task(loaded) == "single_label_classification"
    kept = first.clone()
    loaded(**{name: values[:1] for name, values in batch.items()})
    assert torch.equal(first, kept)  # the runtime's next answer is not written over it
    arrays = {name: np.asarray(tensor, dtype=np.int32) for name, tensor in batch.items()}
    assert torch.equal(loaded(**arrays).logits, first)


def test_it_is_measured(folder):
    found = measure(folder, sequence_length=8, runs=2, threads=1)
    assert found.size_bytes == sum((folder / f"openvino_model.{end}").stat().st_size for end in ("xml", "bin"))
    assert found.latency.dtype == "float32"
    assert found.latency.threads == 1
    assert found.parameters == sum(p.numel() for p in tiny_bert_classifier().parameters())
    assert found.peak_memory_bytes > 0


def test_bad_input_is_refused(folder, tmp_path):
    with pytest.raises(ShrinkError, match="`model` must be a folder with openvino_model.xml"):
        OpenVinoModel(tmp_path)
    with pytest.raises(ShrinkError, match="`threads` must be at least 1, got 0"):
        OpenVinoModel(folder, threads=0)
    with pytest.raises(ShrinkError, match="`device` must be 'cpu' for an exported graph"):
        load_model(folder).to("cuda")
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    with pytest.raises(ShrinkError, match="config.json"):
        OpenVinoModel(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ShrinkError, match="`model` must be a graph that OpenVINO can load, but"):
        OpenVinoModel(tmp_path)
