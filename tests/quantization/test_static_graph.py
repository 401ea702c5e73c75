import numpy as np
import pytest

from hf_shrink.quantization.static_graph import Grid, constant_products, quantize_products, round_columns

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(8, 5)).astype(np.float32)
BIAS = RANDOM.normal(size=5).astype(np.float32)
ROWS = RANDOM.normal(size=(6, 8)).astype(np.float32)
MODULES = ("m", "n", "o", "a", "b", "c")
EVEN = np.ones(8, np.float32)


def graph(nodes, outputs=("y",), **constants):
    info = onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()]
    body = onnx.helper.make_graph(
        nodes,
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [info(name, onnx.TensorProto.FLOAT, ["n", None]) for name in outputs],
        tensors,
    )
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def make(kind, inputs, outputs, name, **attributes):
    return onnx.helper.make_node(kind, inputs, outputs, name, **attributes)


def run(model, rows=ROWS):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": rows})


def kinds(model):
    return [node.op_type for node in model.graph.node]


FORMS = {
    "matmul": lambda: graph([make("MatMul", ["x", "w"], ["y"], "m/MatMul")], w=WEIGHT),
    "matmul_add": lambda: graph(
        [make("MatMul", ["x", "w"], ["p"], "m/MatMul"), make("Add", ["b", "p"], ["y"], "m/Add")], w=WEIGHT, b=BIAS
    ),
    "gemm": lambda: graph([make("Gemm", ["x", "w", "b"], ["y"], "m/Gemm")], w=WEIGHT, b=BIAS),
    "gemm_turned": lambda: graph(
        [make("Gemm", ["x", "w", "b"], ["y"], "m/Gemm", transB=1)], w=np.ascontiguousarray(WEIGHT.T), b=BIAS
    ),
    "transposed": lambda: graph(
        [make("Transpose", ["w"], ["t"], "/Transpose"), make("MatMul", ["x", "t"], ["y"], "m/MatMul")],
        w=np.ascontiguousarray(WEIGHT.T),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_product_becomes_one_of_integers(form):
    packed = FORMS[form]()
    expected = run(packed)[0]
    quantize_products(packed, {"x": Grid(ROWS.min(), ROWS.max(), EVEN)}, MODULES)
    onnx.checker.check_model(packed)
    assert kinds(packed) == ["Mul", "QuantizeLinear", "MatMulIntegerToFloat"]
    assert not [t for t in packed.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert 0 < np.abs(run(packed)[0] - expected).max() < 0.1


def test_what_comes_out_is_the_product_of_the_rounded_numbers():
    packed = FORMS["matmul_add"]()
    low, high, factors = -1.5, 2.0, RANDOM.uniform(0.5, 2, 8).astype(np.float32)
    quantize_products(packed, {"x": Grid(low, high, factors)}, MODULES)
    step = (high - low) / 255
    zero = np.rint(-low / step)
    rows = (np.clip(np.rint(ROWS * factors / step) + zero, 0, 255) - zero) * step  # beyond the ends it is clipped
    levels, scales, zeros = round_columns(WEIGHT / factors[:, None])
    weight = (levels.astype(np.float64) - zeros) * scales
    np.testing.assert_allclose(run(packed)[0], rows @ weight + BIAS, rtol=1e-4, atol=1e-5)


def test_columns_have_grids_of_their_own_that_hold_zero():
    weight = np.array([[1.0, 0.0, 100.0, 5.0], [-1.0, 0.0, 0.0, 6.0], [0.0, 0.0, -28.0, 7.0]], np.float32)
    levels, scales, zeros = round_columns(weight)
    assert levels.dtype == zeros.dtype == np.int8
    assert scales.tolist() == pytest.approx([2 / 128, 1, 1, 7 / 128])
    assert levels[:, 2].tolist() == [64, -36, -64]
    restored = (levels.astype(float) - zeros) * scales
    assert (restored[weight == 0] == 0).all()
    assert (np.abs(restored - weight) <= 0.51 * scales).all()
    assert 2 * 255 * np.abs(levels.astype(int)).max() <= 2**15 - 1  # of two products, as CPUs without VNNI add them


def test_what_is_given_to_several_is_rounded_once_and_their_weights_alone_are_kept():
    other = RANDOM.normal(size=(8, 3)).astype(np.float32)
    nodes = [make("MatMul", ["x", name], [f"{name}_out"], f"{name}/MatMul") for name in ("a", "b", "c")]
    packed = graph(nodes, ("a_out", "b_out", "c_out"), a=WEIGHT, b=other, c=WEIGHT)
    expected = run(packed)
    quantize_products(packed, {"x": Grid(ROWS.min(), ROWS.max(), EVEN)}, MODULES)
    assert kinds(packed).count("QuantizeLinear") == 1
    assert len([t for t in packed.graph.initializer if len(t.dims) == 2]) == 2  # a and c share theirs
    for found, right in zip(run(packed), expected, strict=True):
        assert np.abs(found - right).max() < 0.1


def test_what_has_no_grid_and_what_is_no_plain_product_stays():
    left = [
        make("MatMul", ["x", "w"], ["p"], "m/MatMul"),
        make("Gemm", ["p", "s"], ["q"], "n/Gemm", alpha=2.0),
        make("Transpose", ["q"], ["t"], "/Transpose"),
        make("MatMul", ["q", "t"], ["y"], "o/MatMul"),
    ]
    square = RANDOM.normal(size=(5, 5)).astype(np.float32)
    untouched = graph(left, w=WEIGHT, s=square)
    before = kinds(untouched)
    assert [product.node.name for product in constant_products(untouched)] == ["m/MatMul"]
    quantize_products(untouched, dict.fromkeys(("p", "q"), Grid(-9, 9, np.ones(5, np.float32))), MODULES)
    assert kinds(untouched) == before
    assert len(untouched.graph.initializer) == 2


def test_a_sum_that_others_need_without_its_constant_is_left_whole():
    nodes = [make("MatMul", ["x", "w"], ["p"], "m/MatMul"), make("Add", ["p", "b"], ["y"], "m/Add")]
    packed = graph(nodes, ("y", "p"), w=WEIGHT, b=BIAS)
    expected = run(packed)
    quantize_products(packed, {"x": Grid(ROWS.min(), ROWS.max(), EVEN)}, MODULES)
    assert kinds(packed)[-1] == "Add"
    for found, right in zip(run(packed), expected, strict=True):
        assert np.abs(found - right).max() < 0.1


def test_another_module_that_is_given_the_same_stays_in_float():
    nodes = [make("MatMul", ["x", name], [f"{name}_out"], f"{name}/MatMul") for name in ("a", "b")]
    packed = graph(nodes, ("a_out", "b_out"), a=WEIGHT, b=2 * WEIGHT)
    expected = run(packed)[1]
    quantize_products(packed, {"x": Grid(ROWS.min(), ROWS.max(), EVEN)}, ["a"])
    assert kinds(packed).count("MatMul") == 1
    assert np.array_equal(run(packed)[1], expected)
