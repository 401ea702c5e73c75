"""Matrix products of an ONNX graph in int8, with ranges of the activations that are fixed."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import require
from hf_shrink.quantization.activation_ranges import STEPS
from hf_shrink.quantization.embedding_rows import drop_unused, is_table, replace
from hf_shrink.quantization.node_names import module_of

DOMAIN = "com.microsoft"  # ONNX Runtime's own operators
LARGEST = 64  # of a stored weight: CPUs without VNNI add two products in 16 bits, and 2 * 255 * 64 just fits


@dataclass(frozen=True)
class Grid:
    """Where the 8 bits of some activations lie.

    Args:
        low: The least value, at most 0.
        high: The largest value, at least 0.
        factors: What each channel is multiplied by before, and divided by in the weights, shape (K,).
    """

    low: float
    high: float
    factors: NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """A product of activations and a constant matrix, with what is added to each row of it.

    Args:
        node: The node that multiplies.
        weight: Shape (K, N).
        bias: Name of a constant of shape (N,), or None.
        output: Name of the sum.
    """

    node: Any
    weight: NDArray[np.float32]
    bias: str | None
    output: str

    @property
    def input(self) -> str:
        """Name of the activations."""
        return self.node.input[0]


def constant_products(graph: Any) -> list[Product]:
    """Find the products with a constant matrix, in the order of the graph.

    Args:
        graph: An `onnx.ModelProto` with its weights inside.

    Returns:
        MatMul and Gemm nodes; those that transpose or scale what they are given are left out.
    """
    onnx = require("onnx", extra="onnx")
    tables = {tensor.name: tensor for tensor in graph.graph.initializer if is_table(onnx, tensor)}
    turned = {n.output[0]: n.input[0] for n in graph.graph.node if n.op_type == "Transpose" and n.input[0] in tables}
    biases = _biases(graph.graph)
    found = []
    for node in graph.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or turned.get(node.input[1], node.input[1]) not in tables:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("transA", 0) or (attributes.get("alpha", 1), attributes.get("beta", 1)) != (1, 1):
            continue
        weight = onnx.numpy_helper.to_array(tables[turned.get(node.input[1], node.input[1])])
        if (node.input[1] in turned) != bool(attributes.get("transB", 0)):
            weight = weight.T
        bias, output = (node.input[2], node.output[0]) if len(node.input) > 2 else biases.get(node.output[0], ("", ""))
        found.append(Product(node, weight, bias or None, output or node.output[0]))
    return found


def quantize_products(graph: Any, grids: Mapping[str, Grid], modules: Collection[str]) -> None:
    """Put products with a constant matrix into int8, in place: their inputs in 8 bits, their weights in 7.

    Each becomes one operator of ONNX Runtime, which multiplies integers and gives floats. All else stays in float:
    sums, norms, softmax, and products of two activations. Pairs of the standard's QuantizeLinear and DequantizeLinear
    would say the same, but of those around a product with two axes, as in a head, the runtime makes one in float.

    Args:
        graph: An `onnx.ModelProto` with its weights inside, its nodes named by `name_nodes`.
        grids: By the name of the activations.
        modules: Full names of those whose products are quantized; others may be given the same activations.
    """
    onnx = require("onnx", extra="onnx")
    writer = _Writer(onnx, grids)
    found = [p for p in constant_products(graph) if p.input in grids and module_of(p.node.name) in modules]
    products = {product.node.output[0]: product for product in found}
    sums = {product.output for product in products.values()} - set(products)
    nodes = []
    for node in graph.graph.node:
        if node.output[0] in products:
            nodes += writer.quantized(products[node.output[0]])
        elif node.output[0] not in sums:
            nodes.append(node)
    taken = {name for node in nodes for name in node.input} | {output.name for output in graph.graph.output}
    weights = {product.node.input[1] for product in products.values()}
    replace(graph.graph.node, [n for n in nodes if n.output[0] in taken or n.output[0] not in weights])
    replace(graph.graph.initializer, [*graph.graph.initializer, *writer.tensors.values()])
    drop_unused(graph.graph)
    if not any(entry.domain == DOMAIN for entry in graph.opset_import):
        graph.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _biases(graph: Any) -> dict[str, tuple[str, str]]:
    """What is read once alone, by a node that adds a constant row to it: that row, and the sum."""
    rows = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    read = Counter([*(name for node in graph.node for name in node.input), *(output.name for output in graph.output)])
    adding = [node for node in graph.node if node.op_type == "Add"]
    pairs = [(n.input[i], n.input[1 - i], n.output[0]) for n in adding for i in (0, 1) if n.input[1 - i] in rows]
    return {name: (row, total) for name, row, total in pairs if read[name] == 1}


@dataclass
class _Writer:
    """Takes products one by one; keeps the constants that they need."""

    onnx: Any
    grids: Mapping[str, Grid]
    tensors: dict[str, Any] = field(default_factory=dict)
    known: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)  # content to the names it is stored under

    def quantized(self, product: Product) -> list[Any]:
        values, step, zero = (f"{product.input}_{part}" for part in ("uint8", "scale", "zero"))
        weight, scales, zeros = self._weight(product)
        inputs = [values, weight, step, scales, zero, zeros]
        nodes = [] if step in self.tensors else self._activations(product.input, module_of(product.node.name))
        bias = [] if product.bias is None else [product.bias]
        kind, name = "MatMulIntegerToFloat", product.node.name
        multiply = self.onnx.helper.make_node(kind, [*inputs, *bias], [product.output], name, domain=DOMAIN)
        return [*nodes, multiply]

    def _activations(self, name: str, module: str) -> list[Any]:
        """Quantize what one product or several are given."""
        grid = self.grids[name]
        scale = np.float32((grid.high - grid.low) / STEPS) or np.float32(1)
        step = self._constant(scale, f"{name}_scale")
        zero = self._constant(np.uint8(np.rint(-grid.low / scale)), f"{name}_zero")
        factors = self._constant(grid.factors, f"{name}_factors")
        make = self.onnx.helper.make_node
        return [
            make("Mul", [name, factors], [f"{name}_even"], f"{module}/Mul:{name}"),
            make("QuantizeLinear", [f"{name}_even", step, zero], [f"{name}_uint8"], f"{module}/QuantizeLinear:{name}"),
        ]

    def _weight(self, product: Product) -> list[str]:
        weight = np.ascontiguousarray(product.weight / self.grids[product.input].factors[:, None])
        key = (weight.shape, hashlib.sha256(weight.tobytes()).digest())
        if key not in self.known:  # layers may share their weights
            kinds = ("int8", "scale", "zero")
            self.known[key] = [
                self._constant(part, f"{product.node.name}_{kind}")
                for part, kind in zip(round_columns(weight), kinds, strict=True)
            ]
        return self.known[key]

    def _constant(self, values: Any, name: str) -> str:
        self.tensors[name] = self.onnx.numpy_helper.from_array(np.asarray(values), name)
        return name


def round_columns(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int8]]:
    """Round a matrix to 7 bits, each column on a grid of its own, which holds 0.

    Args:
        weight: Shape (K, N).

    Returns:
        Levels in [-64, 64], shape (K, N); scales and zero points, shape (N,).
    """
    low, high = np.minimum(weight.min(0), 0), np.maximum(weight.max(0), 0)
    scales = ((high - low) / np.float32(2 * LARGEST)).astype(np.float32)
    scales[scales == 0] = 1
    zeros = np.rint(-LARGEST - low / scales)
    levels = np.clip(np.rint(weight / scales) + zeros, -LARGEST, LARGEST)
    return levels.astype(np.int8), scales, zeros.astype(np.int8)
