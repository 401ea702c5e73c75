import numpy as np
import pytest

from hf_shrink.quantization import backends
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.backends.onnx_int8 import OPTIONS, onnx_int8
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.job import Job
from tests.models import tiny_bert_classifier

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def graph(artifact):
    return onnx.load(artifact.path / "model.onnx")


def stored(graph, operator):
    """The constants that nodes of one kind take, by node."""
    tables = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    return [
        [tables[name] for name in node.input if name in tables]
        for node in graph.graph.node
        if node.op_type == operator
    ]


def test_every_layer_is_packed(graph, model):
    linear = [module for module in model.modules() if type(module).__name__ == "Linear"]
    assert len(stored(graph, "MatMulInteger")) == len(linear)
    assert not [kind for kind in stored(graph, "MatMul") + stored(graph, "Gemm") if kind]  # those left are attention's
    weights = sorted(tensor.size for packed in stored(graph, "MatMulInteger") for tensor in packed if tensor.ndim == 2)
    assert weights == sorted(module.weight.numel() for module in linear)


def test_every_embedding_is_packed(graph, model):
    embeddings = {module.weight.shape for module in model.modules() if type(module).__name__ == "Embedding"}
    packed = [constants[0] for constants in stored(graph, "Gather") if constants and constants[0].dtype == np.int8]
    assert {tensor.shape for tensor in packed} == embeddings
    floats = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(np.prod(tensor.dims) for tensor in floats) == 30000  # scales of the words, one a row


def test_no_processor_can_overflow(graph):
    for packed in stored(graph, "MatMulInteger"):
        (weight,) = (tensor for tensor in packed if tensor.ndim == 2)
        assert weight.dtype == np.int8
        # Without VNNI two products of a uint8 activation and a weight are added in 16 bits.
        assert 2 * 255 * np.abs(weight.astype(int)).max() <= 2**15 - 1
        assert np.ptp(weight.astype(int), axis=0).min() > 60  # a scale a column, or narrow columns would use few steps


@pytest.fixture(scope="module")
def make_job(tmp_path_factory):
    """Jobs of one small model, whose folders share its float graph."""
    work, small = tmp_path_factory.mktemp("jobs"), to_float(tiny_bert_classifier(num_hidden_layers=1))

    def make_job(name, **options):
        (work / name).mkdir()
        return Job(small, "single_label_classification", work / name, options.pop("step", print), **options)

    return make_job


LAYER = "bert.encoder.layer.0"


@pytest.mark.parametrize(
    "module",
    ["classifier", f"{LAYER}.output.dense", f"{LAYER}.attention.self.key", "bert.embeddings.word_embeddings"],
)
def test_what_is_ignored_stays_in_float(make_job, module):
    plain, kept = make_job(f"without-{module}"), make_job(f"with-{module}", ignore=(module,))
    weight = plain.model.get_submodule(module).weight
    held = []
    for job in (plain, kept):
        onnx_int8(job)
        graph = onnx.load(job.folder / "model.onnx")
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer]
        expected = weight.detach().numpy()
        held.append([a for a in arrays if a.dtype == np.float32 and a.size == expected.size and a.ndim == 2])
    assert not any(np.array_equal(a, e) for a in held[0] for e in (weight.detach().numpy(), weight.detach().numpy().T))
    assert any(np.array_equal(a, e) for a in held[1] for e in (weight.detach().numpy(), weight.detach().numpy().T))


def test_weights_that_stay_in_float_are_told(make_job, monkeypatch):
    monkeypatch.setattr(backends.onnx_int8, "MOSTLY_FLOAT", 0.0)
    steps = []
    job = make_job("told", step=steps.append)
    with pytest.warns(UserWarning, match="% of the weights of BertForSequenceClassification stay in float"):
        said = onnx_int8(job).record
    assert len(steps) == QUANTIZERS["onnx-int8"].facts["stages"]
    assert 0 < said["float_share"] < 0.2
    assert said["options"] == OPTIONS
