"""Heads of an ONNX graph that share their weights with the embeddings, in int8 with them."""

from collections.abc import Collection
from typing import Any

from hf_shrink.errors import require
from hf_shrink.quantization.embedding_rows import (
    drop_unused,
    gather_rows,
    gathers_rows,
    is_table,
    pack_rows,
    replace,
)
from hf_shrink.quantization.node_names import module_of

LARGEST = 63  # 7 bits: CPUs without VNNI add two 8-bit products in 16 bits, which overflows, silently


def quantize_tied_heads(graph: Any, ignore: Collection[str] = ()) -> None:
    """Store a table that is an embedding and a head at once as int8, once, in place.

    The head's activations get their 8 bits as they come. ONNX Runtime's own tool leaves such a head in float, which is
    a fifth to a third of a small language model.

    Args:
        graph: An `onnx.ModelProto` with its weights inside, its nodes named by `name_nodes`.
        ignore: Full names of modules that stay in float; a table with one of them is left to the other tools.
    """
    onnx = require("onnx", extra="onnx")
    tables = {tensor.name: tensor for tensor in graph.graph.initializer if is_table(onnx, tensor)}
    turned = {
        node.output[0]: node.input[0]
        for node in graph.graph.node
        if node.op_type == "Transpose" and node.input[0] in tables and module_of(node.name) not in ignore
    }
    heads = {n.input[1] for n in graph.graph.node if n.op_type == "MatMul" and n.input[1] in turned}
    gathered = {n.input[0] for n in graph.graph.node if gathers_rows(n) and module_of(n.name) not in ignore}
    tied = {turned[name] for name in heads} & gathered
    nodes: list[Any] = []
    for node in graph.graph.node:
        if gathers_rows(node) and node.input[0] in tied and module_of(node.name) not in ignore:
            nodes += gather_rows(onnx, node)
        elif node.op_type == "MatMul" and turned.get(node.input[1]) in tied:
            nodes += _multiply(onnx, node, turned[node.input[1]])
        else:
            nodes.append(node)
    taken = {name for node in nodes for name in node.input}
    replace(graph.graph.node, [n for n in nodes if n.output[0] in taken or n.output[0] not in turned])
    packed = [tensor for name in sorted(tied) for tensor in pack_rows(onnx, tables[name], LARGEST)]
    replace(graph.graph.initializer, [*graph.graph.initializer, *packed])
    drop_unused(graph.graph)


def _multiply(onnx: Any, node: Any, table: str) -> list[Any]:
    """A product of integers; the runtime folds what turns the table, and joins the rest into one operator."""
    make, inputs, out = onnx.helper.make_node, node.input[0], node.output[0]
    rows, scales = f"{table}_int8_turned", f"{table}_scale_turned"
    return [
        make("DynamicQuantizeLinear", [inputs], [f"{out}_in", f"{out}_in_scale", f"{out}_in_zero"], f"{node.name}_in"),
        make("Transpose", [f"{table}_int8"], [rows], f"{node.name}_weight", perm=[1, 0]),
        make("Transpose", [f"{table}_scale"], [scales], f"{node.name}_scale", perm=[1, 0]),
        make("MatMulInteger", [f"{out}_in", rows, f"{out}_in_zero"], [f"{out}_int32"], f"{node.name}_int8"),
        make("Cast", [f"{out}_int32"], [f"{out}_float"], f"{node.name}_float", to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{out}_in_scale", scales], [f"{out}_scale"], f"{node.name}_scales"),
        make("Mul", [f"{out}_float", f"{out}_scale"], [out], f"{node.name}_product"),
    ]
