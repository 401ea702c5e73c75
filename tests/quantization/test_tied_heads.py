import numpy as np
import pytest

from hf_shrink.quantization.tied_heads import quantize_tied_heads

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROWS, WIDTH = 200, 16


def table():
    weights = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    weights[3] *= 100  # one large row must not blur the others
    return weights


def graph(*, gathered=True):
    """Rows of a table, and scores of vectors against all of it."""
    make, info, kinds = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    nodes = [
        make("Transpose", ["table"], ["turned"], "head/Transpose", perm=[1, 0]),
        make("MatMul", ["vectors", "turned"], ["scores"], "head/MatMul"),
    ]
    inputs = [info("vectors", kinds.FLOAT, ["n", WIDTH])]
    outputs = [info("scores", kinds.FLOAT, [None, None])]
    if gathered:
        nodes.insert(0, make("Gather", ["table", "ids"], ["rows"], "embedding/Gather"))
        inputs.append(info("ids", kinds.INT64, ["m"]))
        outputs.append(info("rows", kinds.FLOAT, [None, None]))
    body = onnx.helper.make_graph(nodes, "g", inputs, outputs, [onnx.numpy_helper.from_array(table(), "table")])
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def tensors(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_table_is_stored_once_in_7_bits_and_serves_both():
    model, weights = graph(), table()
    quantize_tied_heads(model)
    onnx.checker.check_model(model)
    stored = tensors(model)
    assert set(stored) == {"table_int8", "table_scale"}
    assert np.abs(stored["table_int8"].astype(int)).max(axis=1).tolist() == [63] * ROWS
    vectors = np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores, rows = session.run(None, {"vectors": vectors, "ids": np.array([3, 0])})
    steps = np.abs(weights).max(axis=1) / 63
    assert (np.abs(rows - weights[[3, 0]]) <= steps[[3, 0], None] * 0.5001).all()
    error = np.abs(scores - vectors @ weights.T) / np.linalg.norm(weights, axis=1)
    assert error.max() < 0.15  # of a row's length; the activations' own rounding is a part of it


@pytest.mark.parametrize("ignore", ["head", "embedding"])
def test_what_is_ignored_stays_in_float(ignore):
    model = graph()
    quantize_tied_heads(model, [ignore])
    assert model == graph()


def test_a_head_of_its_own_is_left_to_others():
    model = graph(gathered=False)
    quantize_tied_heads(model)
    assert model == graph(gathered=False)
