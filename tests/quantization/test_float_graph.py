import pytest
import torch
from transformers import AutoModelForSequenceClassification, RobertaConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import OnnxModel
from hf_shrink.quantization import float_graph
from hf_shrink.quantization.float_graph import check_graph, export_float_graph, to_float
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import module_of
from hf_shrink.quantization.traced import run_float, sample_rows
from tests.models import tiny_bert_classifier

onnx = pytest.importorskip("onnx")
TASK = "single_label_classification"


def small():
    return tiny_bert_classifier(num_hidden_layers=1)


class Answering:
    """Stands for a graph: the model's own answer, shifted in batches of more than 20 tokens."""

    def __init__(self, model, shift):
        self.model, self.shift = model, shift

    def __call__(self, **sample):
        with torch.no_grad():
            logits = self.model(**sample).logits
        return {"logits": logits + (self.shift if sample["input_ids"].shape[1] > 20 else 0.0)}


def test_samples_are_padded_rows_of_what_the_model_takes():
    sample = sample_rows(small(), 3, 9)
    assert set(sample) == {"input_ids", "attention_mask", "token_type_ids"}
    assert sample["attention_mask"].tolist() == [[1] * 9, [1] * 9, [1] * 5 + [0] * 4]
    assert (sample["input_ids"] != 0).all()
    assert sample_rows(small(), 1, 9)["attention_mask"].all()
    assert sample_rows(small(), 2, 500)["input_ids"].shape == (2, 64)  # its positions
    assert not torch.equal(sample["input_ids"], sample_rows(small(), 3, 9, seed=1)["input_ids"])


def test_samples_without_token_types_where_there_is_one_type():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=40, max_position_embeddings=20, type_vocab_size=1, **sizes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    sample = sample_rows(model, 2, 100)
    assert set(sample) == {"input_ids", "attention_mask"}
    assert sample["input_ids"].shape == (2, 18)  # its positions begin after the padding's id
    assert run_float(model, sample, TASK)[0].shape == (2, 2)


def test_batch_and_length_are_free_and_the_answers_the_models(tmp_path):
    model = to_float(small().train())
    export_float_graph(model, tmp_path, TASK)
    modules = dict(model.named_modules())
    stored = onnx.load(tmp_path / "model.onnx")
    products = [n for n in stored.graph.node if n.op_type in ("MatMul", "Gemm", "Gather", "LayerNormalization")]
    with_weights = {name.removesuffix(".weight") for name, _ in model.named_parameters() if name.endswith("weight")}
    assert {module_of(node.name) for node in products} >= with_weights
    assert all(module_of(node.name) in modules for node in stored.graph.node)
    assert len({node.name for node in stored.graph.node}) == len(stored.graph.node)
    assert not [part for part in (stored, stored.graph, *stored.graph.node) if len(part.metadata_props)]
    graph = OnnxModel(tmp_path)
    shapes = {node.name: node.shape for node in (*graph.session.get_inputs(), *graph.session.get_outputs())}
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]  # the names that ORTModel's IO binding reads
    assert shapes["logits"] == ["batch_size", 3]
    for rows, tokens in ((1, 2), (2, 16), (7, 40)):
        sample = sample_rows(model, rows, tokens, seed=9)
        expected = run_float(model, sample, TASK)[0]
        assert expected.std() > 0.1
        assert (graph(**sample).logits - expected).abs().max() < 1e-4


def test_a_frozen_batch_is_found(tmp_path, monkeypatch):
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **options: export(*args, **{**options, "dynamic_shapes": None})
    )
    with pytest.raises(
        ShrinkError, match="`model` must answer alike as a graph, but with inputs of 1 x 3 .* it fails"
    ):
        export_float_graph(to_float(small()), tmp_path, TASK)


def test_answers_are_held_to_the_tolerance():
    model = to_float(small())
    scale = max(1.0, run_float(model, sample_rows(model, 3, 21, seed=1), TASK)[0].abs().max().item())
    check_graph(model, Answering(model, 0.2e-4), TASK)
    for shift in (3e-4 * scale, float("nan"), float("inf")):
        with pytest.raises(ShrinkError, match=r"with inputs of 3 x 21 the graph .* does not: logits are off by"):
            check_graph(model, Answering(model, shift), TASK)


def test_jobs_side_by_side_share_one_export(monkeypatch, tmp_path):
    exported = []
    monkeypatch.setattr(
        float_graph,
        "export_float_graph",
        lambda model, folder, task: exported.append(folder) or (folder / "model.onnx").write_bytes(b""),
    )
    jobs = [Job(None, "regression", tmp_path / name, lambda stage: None) for name in ("first", "second")]
    paths = [float_graph.float_graph_of(job) for job in jobs]
    assert paths == [tmp_path / "float" / "model.onnx"] * 2
    assert exported == [tmp_path / "float"]
