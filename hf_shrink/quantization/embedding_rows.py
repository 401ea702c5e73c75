"""Embeddings of an ONNX graph in int8, one scale a row."""

from collections.abc import Collection
from typing import Any

import numpy as np

from hf_shrink.errors import require
from hf_shrink.quantization.node_names import module_of

LARGEST = 127


def quantize_embedding_rows(graph: Any, ignore: Collection[str] = ()) -> None:
    """Store every float table that rows are gathered from as int8, in place.

    Embeddings are half of a small encoder. ONNX Runtime's own tool gives a whole table one scale, which its largest
    number sets; with a scale a row the error of MiniLM's logits is half as large, for 1 % of the bytes.

    Args:
        graph: An `onnx.ModelProto` with its weights inside, its nodes named by `name_nodes`.
        ignore: Full names of modules that stay in float.
    """
    onnx = require("onnx", extra="onnx")
    tables = {tensor.name: tensor for tensor in graph.graph.initializer if is_table(onnx, tensor)}
    nodes, packed = [], {}
    for node in graph.graph.node:
        if not gathers_rows(node) or node.input[0] not in tables or module_of(node.name) in ignore:
            nodes.append(node)
            continue
        packed[node.input[0]] = tables[node.input[0]]
        nodes += gather_rows(onnx, node)
    replace(graph.graph.node, nodes)
    rows = [tensor for table in packed.values() for tensor in pack_rows(onnx, table, LARGEST)]
    replace(graph.graph.initializer, [*graph.graph.initializer, *rows])
    drop_unused(graph.graph)


def is_table(onnx: Any, tensor: Any) -> bool:
    """Whether a constant is a float matrix.

    Args:
        onnx: The library.
        tensor: An initializer.

    Returns:
        True or False.
    """
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def gathers_rows(node: Any) -> bool:
    """Whether a node looks rows up, as an embedding does.

    Args:
        node: Any.

    Returns:
        True or False.
    """
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and axis == 0


def pack_rows(onnx: Any, table: Any, largest: int) -> tuple[Any, Any]:
    """Round a table to integers, each row on its own scale.

    Args:
        onnx: The library.
        table: An initializer of shape (rows, D).
        largest: The integer that the largest number of a row becomes.

    Returns:
        Initializers "<table>_int8" of shape (rows, D) and "<table>_scale" of shape (rows, 1).
    """
    weights = onnx.numpy_helper.to_array(table)  # (rows, D)
    scales = np.abs(weights).max(axis=1, keepdims=True) / np.float32(largest)  # (rows, 1)
    scales[scales == 0] = 1  # a padding row of zeros stays zero
    return (
        onnx.numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{table.name}_int8"),
        onnx.numpy_helper.from_array(scales, f"{table.name}_scale"),
    )


def gather_rows(onnx: Any, node: Any) -> list[Any]:
    """Look rows of integers up, and give them their scales.

    Args:
        onnx: The library.
        node: A node that `gathers_rows` of a table.

    Returns:
        The nodes that take its place, over what `pack_rows` makes of the table.
    """
    make, (table, ids), out = onnx.helper.make_node, node.input, node.output[0]
    return [
        make("Gather", [f"{table}_int8", ids], [f"{out}_int8"], f"{node.name}_int8"),
        make("Gather", [f"{table}_scale", ids], [f"{out}_scale"], f"{node.name}_scale"),
        make("Cast", [f"{out}_int8"], [f"{out}_float"], f"{node.name}_float", to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{out}_float", f"{out}_scale"], [out], f"{node.name}_rows"),
    ]


def drop_unused(graph: Any) -> None:
    """Remove the constants that no node takes any more.

    Args:
        graph: An `onnx.GraphProto`.
    """
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def replace(field: Any, values: list[Any]) -> None:
    """Give a repeated field other values, some of which may be its own.

    Args:
        field: Of a graph.
        values: What it shall hold.
    """
    copies = [type(value).FromString(value.SerializeToString()) for value in values]  # clearing frees the originals
    del field[:]
    field.extend(copies)
