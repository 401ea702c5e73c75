import numpy as np
import pytest

from hf_shrink.quantization.embedding_rows import quantize_embedding_rows

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TABLE = np.array([[1.27, -0.635, 0.0], [0.0, 0.0, 0.0], [-127.0, 63.4, 1.0]], np.float32)


def graph(*, axis=0, head=False):
    """Rows of the table; with a head, also their products with all of it, as a tied decoder makes them."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Gather", ["table", "ids"], ["rows"], "lookup", axis=axis)]
    outputs = [info("rows", onnx.TensorProto.FLOAT, [None, None])]
    if head:
        nodes += [
            make("Transpose", ["table"], ["turned"], "turn"),
            make("MatMul", ["rows", "turned"], ["scores"], "head"),
        ]
        outputs.append(info("scores", onnx.TensorProto.FLOAT, [None, None]))
    ids = [info("ids", onnx.TensorProto.INT64, ["n"])]
    body = onnx.helper.make_graph(nodes, "g", ids, outputs, [onnx.numpy_helper.from_array(TABLE, "table")])
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def run(model, ids):
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"ids": np.array(ids)})


def tables(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_each_row_gets_its_own_scale():
    packed = graph()
    quantize_embedding_rows(packed)
    stored = tables(packed)
    assert set(stored) == {"table_int8", "table_scale"}  # the float table is gone
    assert stored["table_int8"].dtype == np.int8
    assert stored["table_int8"].tolist() == [[127, -64, 0], [0, 0, 0], [-127, 63, 1]]  # by hand; halves go to even
    np.testing.assert_allclose(stored["table_scale"], [[0.01], [1.0], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(run(packed, [0, 2, 1])[0], [[1.27, -0.64, 0], [-127, 63, 1], [0, 0, 0]], rtol=1e-6)


def test_one_large_row_does_not_blur_the_others():
    packed = graph()
    quantize_embedding_rows(packed)
    error = np.abs(run(packed, [0])[0] - TABLE[0]).max()
    assert error <= 0.01 / 2 + 1e-6  # half a step of its own row; one scale for the table has steps of 1
    assert np.abs(np.rint(TABLE[0] / 1.0) - TABLE[0]).max() > 0.3


def test_a_table_that_is_also_multiplied_with_stays_for_that():
    packed, ids = graph(head=True), [0, 2]
    quantize_embedding_rows(packed)
    assert {"table", "table_int8", "table_scale"} == set(tables(packed))
    rows, scores = run(packed, ids)
    np.testing.assert_allclose(scores, rows @ TABLE.T, rtol=1e-5)


def test_gathering_columns_is_left_alone():
    untouched = graph(axis=1)
    before = untouched.SerializeToString()
    quantize_embedding_rows(untouched)
    assert untouched.SerializeToString() == before
