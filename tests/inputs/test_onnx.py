import shutil
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from hf_shrink.errors import MissingExtraError, ShrinkError
from hf_shrink.inputs import OnnxModel, base_folder, find_task, load_model, load_processing_class, model_name
from tests.models import export_onnx, tiny_bert_classifier, tiny_tokenizer


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_onnx(tiny_bert_classifier(), tiny_tokenizer(), tmp_path_factory.mktemp("export") / "tickets-onnx")


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "tickets-onnx")


@pytest.fixture
def batch():
    """Another batch size and length than the graph was exported with, padded."""
    return tiny_tokenizer()(["my card is lost please help", "cash", "top up"], padding=True, return_tensors="pt")


def test_graph_gives_the_logits_of_its_source(folder, batch):
    loaded = load_model(folder)
    with torch.no_grad():
        expected = tiny_bert_classifier()(**batch).logits
    assert isinstance(loaded, OnnxModel)
    output = loaded(**batch)
    assert (output.logits - expected).abs().max() < 1e-5
    assert output["logits"].shape == (3, 3)
    assert expected.std() > 0.1


def test_only_declared_inputs_are_fed(folder, batch):
    model = OnnxModel(folder)
    wider = {**batch, "labels": torch.tensor([0, 1, 2]), "token_type_ids": torch.zeros_like(batch["input_ids"])}
    assert torch.equal(model(**wider).logits, model(**batch).logits)


def test_arrays_and_other_integers_are_taken(folder, batch):
    model = OnnxModel(folder)
    arrays = {name: np.asarray(tensor, dtype=np.int32) for name, tensor in batch.items()}
    assert torch.equal(model(**arrays).logits, model(**batch).logits)


def test_missing_input_is_named(folder, batch):
    with pytest.raises(ShrinkError, match=r"`inputs` must hold all that the graph takes.*'attention_mask'.* missing"):
        OnnxModel(folder)(input_ids=batch["input_ids"])


def test_token_types_default_to_zero_as_in_the_float_model(tmp_path, batch):
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    source = tiny_bert_classifier(num_hidden_layers=1)
    model = OnnxModel(export_onnx(source, tokenizer, tmp_path))
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = source(**plain).logits
    assert (model(**plain).logits - expected).abs().max() < 1e-5


def test_it_stands_in_for_a_model(folder):
    model = load_model(folder, threads=1)
    assert model.session.get_session_options().intra_op_num_threads == 1
    assert find_task(model) == "single_label_classification"
    assert model.config.num_labels == 3
    assert model.eval() is model.to("cpu") is model.to(torch.device("cpu")) is model
    assert model.device.type == "cpu"
    assert load_model(model) is model
    assert model_name(model) == "tickets-onnx"
    assert base_folder(model) == model.path == folder
    assert load_processing_class(model)("my card")["input_ids"] == [2, 5, 6, 3]
    with pytest.raises(ShrinkError, match="`device` must be 'cpu' for an exported graph, got 'cuda'"):
        model.to("cuda")


def test_one_of_several_graphs_is_named_by_its_path(folder, batch):
    shutil.copy(folder / "model.onnx", folder / "model_quantized.onnx")
    with pytest.raises(ShrinkError, match=r"one .onnx file.*\['model.onnx', 'model_quantized.onnx'\]. Give the path"):
        load_model(folder)
    model = load_model(folder / "model_quantized.onnx")
    assert model.file == folder / "model_quantized.onnx"
    assert model(**batch).logits.shape == (3, 3)


def test_safetensors_beside_a_graph_are_preferred(folder):
    tiny_bert_classifier().save_pretrained(folder)
    assert type(load_model(folder)).__name__ == "BertForSequenceClassification"


def test_broken_folders(folder, tmp_path):
    with pytest.raises(ShrinkError, match="`model` must be a folder with an .onnx file"):
        OnnxModel(tmp_path)
    with pytest.raises(ShrinkError, match="`threads` must be at least 1, got 0"):
        OnnxModel(folder, threads=0)
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ShrinkError, match="`model` must be a graph that onnxruntime can load, but model.onnx is not"):
        OnnxModel(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ShrinkError, match=r"`model` must hold a config.json beside the graph"):
        OnnxModel(folder)


def test_missing_onnxruntime_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "hf_shrink\[onnx\]"'):
        OnnxModel(folder)


def test_graph_of_the_hub(hub, folder, batch):
    api = HfApi()
    api.create_repo("user/tickets-onnx")
    api.upload_folder(repo_id="user/tickets-onnx", folder_path=folder)
    model = load_model("user/tickets-onnx", threads=1)
    assert torch.equal(model(**batch).logits, OnnxModel(folder, threads=1)(**batch).logits)
    assert model_name(model) == "user/tickets-onnx"
    assert load_processing_class(model)("my card")["input_ids"] == [2, 5, 6, 3]
