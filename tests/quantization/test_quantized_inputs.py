import numpy as np
import pytest

from hf_shrink.quantization.quantized_inputs import round_only_inputs

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SCALE, ZERO = np.float32(0.1), np.uint8(128)


def constant(name, values):
    return onnx.numpy_helper.from_array(np.asarray(values), name)


def pair(name, result):
    make = onnx.helper.make_node
    return [
        make("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"], f"{name}_quantize"),
        make("DequantizeLinear", [f"{name}_q", "scale", "zero"], [result], f"{name}_dequantize"),
    ]


@pytest.fixture
def graph():
    """A product and a residual sum as the tool writes them: all tensors rounded, the output under another name."""
    make = onnx.helper.make_node
    nodes = [
        *pair("x", "x_rounded"),
        make("DequantizeLinear", ["weight", "scale", "weight_zero"], ["weight_float"], "weight_dequantize"),
        make("MatMul", ["x_rounded", "weight_float"], ["product"], "dense/MatMul"),
        *pair("product", "product_rounded"),
        make("Add", ["product_rounded", "x_rounded"], ["logits_exact"], "Add"),
        *pair("logits_exact", "logits"),
    ]
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        nodes,
        "residual",
        [value("x", onnx.TensorProto.FLOAT, [None, 2])],
        [value("logits", onnx.TensorProto.FLOAT, [None, 2])],
        [
            constant("scale", SCALE),
            constant("zero", ZERO),
            constant("weight_zero", np.int8(0)),
            constant("weight", np.array([[10, -20], [30, 5]], np.int8)),
        ],
    )
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


def run(graph, x):
    return onnxruntime.InferenceSession(graph.SerializeToString()).run(["logits"], {"x": x})[0]


def test_only_the_product_reads_rounded_numbers(graph):
    x = np.array([[0.17, -0.34]], np.float32)
    weight = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    rounded = np.array([[0.2, -0.3]], np.float32)
    np.testing.assert_allclose(run(graph, x), [[-0.5, -0.9]], atol=1e-6)  # (-0.7, -0.55→-0.5) + rounded x, on the grid
    round_only_inputs(graph)
    np.testing.assert_allclose(run(graph, x), rounded @ weight + x, atol=1e-6)


def test_what_nobody_reads_any_more_is_gone(graph):
    round_only_inputs(graph)
    assert [node.op_type for node in graph.graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul", "Add",
    ]  # fmt: skip
    assert [output.name for output in graph.graph.output] == ["logits"]


def test_a_product_that_gives_an_output_gives_it_in_float(graph):
    add = next(node for node in graph.graph.node if node.op_type == "Add")
    graph.graph.node.remove(add)
    last = [node for node in graph.graph.node if "logits" in node.name or "logits" in node.output]
    for node in last:
        graph.graph.node.remove(node)
    for node in graph.graph.node:
        node.output[:] = ["logits" if name == "product_rounded" else name for name in node.output]
    x = np.array([[0.17, -0.34]], np.float32)
    round_only_inputs(graph)
    np.testing.assert_allclose(run(graph, x), [[-0.7, -0.55]], atol=1e-6)
    assert [node.op_type for node in graph.graph.node].count("QuantizeLinear") == 1
