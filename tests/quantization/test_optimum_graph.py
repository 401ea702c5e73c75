import logging

import pytest
import torch
from transformers import AlbertConfig, AutoModelForSequenceClassification, FNetConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization import optimum_graph
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import module_of
from hf_shrink.quantization.optimum_graph import export_with_optimum, optimum_graph_of, quiet_libraries
from tests.models import randomize, tiny_bert_classifier

pytest.importorskip("optimum.onnxruntime")
onnx = pytest.importorskip("onnx")
TASK = "single_label_classification"


def tiny_albert():
    config = AlbertConfig(
        vocab_size=25, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return to_float(randomize(AutoModelForSequenceClassification.from_config(config)))


def products(graph):
    return [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]


def test_nodes_are_named_after_modules(tmp_path):
    model = to_float(tiny_bert_classifier(num_hidden_layers=1))
    export_with_optimum(model, tmp_path / "graph", TASK)
    graph = onnx.load(tmp_path / "graph" / "model.onnx")
    linear = {name for name, module in model.named_modules() if type(module).__name__ == "Linear"}
    attention = "bert.encoder.layer.0.attention.self"  # whose products have no weight
    assert {module_of(node.name) for node in products(graph)} == {*linear, attention}
    assert {module_of(node.name) for node in graph.graph.node} <= {name for name, _ in model.named_modules()}
    assert len({node.name for node in graph.graph.node}) == len(graph.graph.node)


def test_layers_that_are_called_again_keep_their_name_and_share_their_weights(tmp_path):
    model = tiny_albert()
    export_with_optimum(model, tmp_path / "graph", TASK)
    found = products(onnx.load(tmp_path / "graph" / "model.onnx"))
    query = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    calls = [node for node in found if module_of(node.name) == query]
    assert len(calls) == 3
    assert len({node.input[1] for node in calls}) == 1


def test_the_model_stays_as_it_is(tmp_path):
    model = to_float(tiny_bert_classifier(num_hidden_layers=1))
    model.config.architectures = [type(model).__name__]
    config, forward = model.config.to_dict(), model.forward
    export_with_optimum(model, tmp_path / "graph", TASK)
    assert model.config.to_dict() == config
    assert model.forward == forward
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


def test_an_architecture_that_optimum_does_not_know_is_refused(tmp_path):
    config = FNetConfig(vocab_size=25, hidden_size=32, num_hidden_layers=1, intermediate_size=64)
    model = to_float(AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(ShrinkError, match="one that Optimum can export for text-classification, but FNet.* onnx-int8"):
        export_with_optimum(model, tmp_path / "graph", TASK)


def test_a_graph_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    model = to_float(tiny_bert_classifier(num_hidden_layers=1))
    save = type(model).save_pretrained

    def save_another(_, folder):
        save(tiny_bert_classifier(num_hidden_layers=1, seed=1), folder)

    monkeypatch.setattr(type(model), "save_pretrained", save_another)
    with pytest.raises(ShrinkError, match="`model` must answer alike as a graph"):
        export_with_optimum(model, tmp_path / "graph", TASK)


def test_jobs_side_by_side_share_one_export(tmp_path, monkeypatch):
    model = to_float(tiny_bert_classifier(num_hidden_layers=1))
    jobs = [Job(model, TASK, tmp_path / name, print) for name in "ab"]
    first = optimum_graph_of(jobs[0])
    monkeypatch.setattr(optimum_graph, "export_with_optimum", lambda *_: pytest.fail("exported again"))
    assert optimum_graph_of(jobs[1]) == first


def test_the_root_logger_stays_bare(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as in a user's process; pytest has put its own there
    with quiet_libraries():
        logging.warning("as ONNX Runtime does")
    assert root.handlers == []
    assert root.level == logging.WARNING
