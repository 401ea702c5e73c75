"""A graph with fixed ranges in which only the inputs of matrix products are rounded."""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_shrink.errors import require
from hf_shrink.quantization.embedding_rows import drop_unused, replace

PRODUCTS = ("MatMul", "Gemm")


def round_only_inputs(graph: Any) -> None:
    """Take back, in place, what ONNX Runtime's tool rounds besides the inputs of quantized products.

    The tool rounds what a product gives as well, and hands the rounded input of a product to all that read it,
    residual sums and norms among them. That, and not the products, is what makes its static models inaccurate.

    Args:
        graph: An `onnx.ModelProto` with pairs of QuantizeLinear and DequantizeLinear.
    """
    makers = {output: node for node in graph.graph.node for output in node.output}
    weights = {tensor.name for tensor in graph.graph.initializer}
    pairs = dict(_pairs(graph.graph.node, makers))
    products = {node.output[0] for node in graph.graph.node if _is_quantized(node, makers, weights)}
    _restore_outputs(graph.graph, pairs, products)
    for node in graph.graph.node:
        kept = 1 if node.output[0] in products else 0
        node.input[kept:] = [pairs.get(name, name) for name in node.input[kept:]]
    _drop_unread(graph.graph)
    drop_unused(graph.graph)
    require("onnx", extra="optimum").checker.check_model(graph)


def _pairs(nodes: Any, makers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a pair gives, and what it was given."""
    for node in nodes:
        quantize = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantize is not None and quantize.op_type == "QuantizeLinear":
            yield node.output[0], quantize.input[0]


def _restore_outputs(graph: Any, pairs: dict[str, str], products: set[str]) -> None:
    """Give a graph's output its name back, which the tool passed on to the rounded one."""
    for output in graph.output:
        if (exact := pairs.pop(output.name, None)) is None:
            continue
        products |= {output.name} if exact in products else set()
        replace(graph.node, [node for node in graph.node if output.name not in node.output])
        for node in graph.node:
            for field in (node.input, node.output):
                field[:] = [output.name if name == exact else name for name in field]


def _is_quantized(node: Any, makers: Mapping[str, Any], weights: set[str]) -> bool:
    maker = makers.get(node.input[1]) if node.op_type in PRODUCTS else None
    return maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in weights


def _drop_unread(graph: Any) -> None:
    while True:
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        nodes = [node for node in graph.node if not read.isdisjoint(node.output)]
        if len(nodes) == len(graph.node):
            return
        replace(graph.node, nodes)
