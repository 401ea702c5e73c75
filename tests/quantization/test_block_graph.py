import numpy as np
import pytest

from hf_shrink.quantization.block_graph import quantize_blocks
from hf_shrink.quantization.blocks import INT4, INT7, round_blocks

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def graph(width=64, *, tied=False, turned=False):
    """Rows of a table, a layer with a bias, and a head that may be the table."""
    draw = np.random.default_rng(0)
    table = draw.standard_normal((50, width)).astype(np.float32)
    table[0] = 0
    layer = draw.standard_normal((width, width)).astype(np.float32)
    bias = draw.standard_normal(width).astype(np.float32)
    head = table if tied else draw.standard_normal((20, width)).astype(np.float32)
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    constant = onnx.numpy_helper.from_array
    nodes = [
        make("Gather", ["table", "ids"], ["rows"], "words/Gather"),
        make("Gemm", ["rows", "layer", "bias"], ["hidden"], "layer/Gemm", transB=1),
        make("MatMul", ["hidden", "head"], ["scores"], "head/MatMul"),
    ]
    if turned:  # as the exporter writes a head tied to the embeddings
        nodes[2:] = [
            make("Transpose", ["table"], ["head"], "head/Transpose", perm=[1, 0]),
            make("MatMul", ["hidden", "head"], ["scores"], "head/MatMul"),
        ]
    tensors = [constant(table, "table"), constant(layer, "layer"), constant(bias, "bias")]
    if not turned:
        tensors.append(constant(head.T, "head"))
    outputs = [info(name, onnx.TensorProto.FLOAT, [None, None]) for name in ("rows", "hidden", "scores")]
    body = onnx.helper.make_graph(nodes, "g", [info("ids", onnx.TensorProto.INT64, ["n"])], outputs, tensors)
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return model, {"table": table, "layer": layer, "bias": bias, "head": head}


def run(model, ids=(0, 3, 49)):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array(ids)})


def stored(values, symmetric, allowed=INT4):
    found = round_blocks(values, group_size=32, symmetric=symmetric, allowed=allowed)
    steps = found.levels.astype(np.float32) - found.zeros[..., None].astype(np.float32)
    return (steps * found.scales[..., None]).reshape(len(values), -1)[:, : values.shape[1]]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("width", [64, 32, 48])  # an even count of blocks, an odd one, and a block that is not full
def test_the_runtime_reads_what_was_stored(width, symmetric):
    model, floats = graph(width)
    quantize_blocks(model, group_size=32, symmetric=symmetric)
    cut = {"Slice"} if width % 32 else set()
    assert {node.op_type for node in model.graph.node} == {
        "GatherBlockQuantized",
        "MatMulNBits",
        "Reshape",
        "Add",
    } | cut
    rows, hidden, scores = run(model)
    table, layer, head = (stored(floats[name], symmetric) for name in ("table", "layer", "head"))
    np.testing.assert_allclose(rows, table[[0, 3, 49]], atol=1e-6)
    np.testing.assert_allclose(hidden, rows @ layer.T + floats["bias"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, hidden @ head.T, rtol=1e-4, atol=1e-2)
    assert (rows[0] == 0).all()  # a padding row


def in_blocks(rows):
    """Activations as the kernel rounds them: 8 bits around zero, a scale for 32 of a row."""
    blocks = rows.reshape(len(rows), -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / scale) * scale).reshape(rows.shape)


@pytest.mark.parametrize("ids", [(3,), (0, 3, 49)])  # one row has a kernel of its own
def test_eight_bits_round_activations_block_by_block(ids):
    model, floats = graph()
    quantize_blocks(model, group_size=32, symmetric=False, bits=8)
    rows, hidden, scores = run(model, ids)
    table, layer, head = (stored(floats[name], False, INT7) for name in ("table", "layer", "head"))
    np.testing.assert_allclose(rows, table[list(ids)], atol=1e-6)
    np.testing.assert_allclose(hidden[-1:], in_blocks(rows[-1:]) @ layer.T + floats["bias"], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(scores[-1:], in_blocks(hidden[-1:]) @ head.T, rtol=1e-3, atol=0.2)
    for name, exact in (("table", table), ("layer", layer), ("head", head)):
        assert np.linalg.norm(exact - floats[name]) < 0.012 * np.linalg.norm(floats[name])  # 4 bits: 0.08
    assert {a.i for node in model.graph.node for a in node.attribute if a.name == "accuracy_level"} == {4}


def test_no_processor_can_overflow_on_eight_bits():
    model, _ = graph()
    quantize_blocks(model, group_size=32, symmetric=False, bits=8)
    levels = [t for t in model.graph.initializer if t.name.endswith("_levels")]
    assert len(levels) == 3
    for tensor in levels:  # without VNNI two products of a level and an int8 activation are added in 16 bits
        largest = onnx.numpy_helper.to_array(tensor).max()
        assert 100 < largest
        assert 2 * 127 * int(largest) <= 2**15 - 1


@pytest.mark.parametrize("name", ["words", "layer", "head"])
def test_what_is_ignored_stays_in_float(name):
    model, floats = graph()
    quantize_blocks(model, group_size=32, symmetric=False, ignore=(name,))
    kept = {tensor.name for tensor in model.graph.initializer} & {"table", "layer", "head"}
    assert kept == {"table" if name == "words" else name}
    rows, hidden, scores = run(model)
    if name == "words":
        np.testing.assert_array_equal(rows, floats["table"][[0, 3, 49]])
    if name == "layer":
        np.testing.assert_allclose(hidden, rows @ floats["layer"].T + floats["bias"], rtol=1e-4, atol=1e-4)
    if name == "head":
        np.testing.assert_allclose(scores, hidden @ floats["head"].T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("width", [64, 48])
@pytest.mark.parametrize("turned", [False, True])
def test_a_head_that_is_the_table_takes_no_bytes_of_its_own(turned, width):
    model, floats = graph(width, tied=True, turned=turned)
    quantize_blocks(model, group_size=32, symmetric=False)
    large = [tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] == 50]
    assert sorted(large) == ["table_levels", "table_scale", "table_zero"]
    assert "Transpose" not in {node.op_type for node in model.graph.node}
    _, hidden, scores = run(model)
    np.testing.assert_allclose(scores, hidden @ stored(floats["table"], False).T, rtol=1e-4, atol=1e-2)


def test_a_tied_head_may_stay_in_float():
    model, floats = graph(tied=True, turned=True)
    quantize_blocks(model, group_size=32, symmetric=False, ignore=("head",))
    _, hidden, scores = run(model)
    np.testing.assert_allclose(scores, hidden @ floats["table"].T, rtol=1e-4, atol=1e-3)
