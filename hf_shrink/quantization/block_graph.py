"""Matrix products and embeddings of an ONNX graph in 4 or 8 bits, in blocks."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.blocks import INT4, INT7, Bytes, Floats, pack, round_blocks
from hf_shrink.quantization.embedding_rows import drop_unused, gathers_rows, is_table, replace
from hf_shrink.quantization.node_names import module_of

DOMAIN = "com.microsoft"  # ONNX Runtime's own operators
GROUP_SIZES = (16, 32, 64, 128, 256)  # what its kernels take
INTEGER_PRODUCTS = 4  # the level of accuracy at which activations get 8 bits, a scale for each block of a row


def check_group_size(group_size: int, advice: str) -> None:
    """Refuse a size that ONNX Runtime has no kernel for.

    Args:
        group_size: Weights of a row that share a scale.
        advice: What to take instead, as a sentence.

    Raises:
        ShrinkError: If there is none.
    """
    if isinstance(group_size, bool) or group_size not in GROUP_SIZES:
        raise ShrinkError(f"`group_size` must be one of {list(GROUP_SIZES)}, got {group_size!r}. {advice}")


def quantize_blocks(
    graph: Any, *, group_size: int, symmetric: bool, bits: int = 4, ignore: Collection[str] = ()
) -> None:
    """Store constant weights of products, and float tables that rows are gathered from, in few bits, in place.

    An embedding and a head that share their weight share its bytes here too.

    Args:
        graph: An `onnx.ModelProto` with its weights inside, its nodes named by `name_nodes`.
        group_size: Weights of a row that share a scale.
        symmetric: Whether blocks go without zero points.
        bits: 4 keeps activations in float. 8, of which 7 are used, rounds them as they come, block by block.
        ignore: Full names of modules that stay in float.
    """
    onnx = require("onnx", extra="onnx")
    tables = {tensor.name: tensor for tensor in graph.graph.initializer if is_table(onnx, tensor)}
    turned = {n.output[0]: n.input[0] for n in graph.graph.node if n.op_type == "Transpose" and n.input[0] in tables}
    packer = _Packer(onnx, tables, turned, group_size, symmetric, bits)
    nodes = []
    for node in graph.graph.node:
        nodes += [node] if module_of(node.name) in ignore else packer.packed(node)
    taken = {name for node in nodes for name in node.input} | {output.name for output in graph.graph.output}
    replace(graph.graph.node, [node for node in nodes if node.output[0] in taken or node.output[0] not in turned])
    replace(graph.graph.initializer, [*graph.graph.initializer, *packer.tensors.values()])
    drop_unused(graph.graph)
    if not any(entry.domain == DOMAIN for entry in graph.opset_import):
        graph.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


@dataclass
class _Packer:
    """Takes nodes one by one; keeps what their weights became."""

    onnx: Any
    tables: dict[str, Any]
    turned: dict[str, str]  # what a node transposes, to its table: a head tied to the embeddings
    group_size: int
    symmetric: bool
    bits: int
    tensors: dict[str, Any] = field(default_factory=dict)
    known: dict[tuple[Any, ...], str] = field(default_factory=dict)  # content to the name it is stored under

    def packed(self, node: Any) -> list[Any]:
        if gathers_rows(node) and node.input[0] in self.tables:
            return self._gather(node)
        if node.op_type in ("MatMul", "Gemm") and (node.input[1] in self.tables or node.input[1] in self.turned):
            return self._product(node)
        return [node]

    def _gather(self, node: Any) -> list[Any]:
        table, ids = node.input
        width = self.tables[table].dims[1]
        name = self._store(table, self.onnx.numpy_helper.to_array(self.tables[table]))
        inputs = [f"{name}_levels", ids, *self._scales(name)]
        attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": self.group_size, "bits": self.bits}
        if width % self.group_size == 0:
            return [self._make("GatherBlockQuantized", inputs, list(node.output), node.name, **attributes)]
        filled = f"{node.output[0]}_filled"  # the last block of a row is; a head that shares the table wants it so
        places = {"starts": 0, "ends": width, "axes": -1}
        for place, value in places.items():
            self.tensors[f"{filled}_{place}"] = self._constant(np.array([value]), f"{filled}_{place}")
        sliced = [filled, *(f"{filled}_{place}" for place in places)]
        return [
            self._make("GatherBlockQuantized", inputs, [filled], node.name, **attributes),
            self.onnx.helper.make_node("Slice", sliced, list(node.output), f"{node.name}_rows"),
        ]

    def _product(self, node: Any) -> list[Any]:
        attributes = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("transA", 0) or (attributes.get("alpha", 1), attributes.get("beta", 1)) != (1, 1):
            return [node]
        source = self.turned.get(node.input[1], node.input[1])
        turned = (source != node.input[1]) != bool(attributes.get("transB", 0))
        weight = self.onnx.numpy_helper.to_array(self.tables[source])  # (K, N), or (N, K) where turned
        rows = weight if turned else weight.T
        name = self._store(source, rows)
        biased = len(node.input) > 2
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes = [*self._blocks(name, rows.shape, node), self._multiply(node, name, rows.shape, product)]
        if biased:
            inputs = [product, node.input[2]]
            nodes.append(self.onnx.helper.make_node("Add", inputs, list(node.output), f"{node.name}_bias"))
        return nodes

    def _blocks(self, name: str, shape: tuple[int, ...], node: Any) -> list[Any]:
        """A product's operator wants three axes, the gathering one two; the runtime folds this node as it loads."""
        blocks = f"{name}_blocks"
        if (blocks,) in self.known:
            return []
        self.known[blocks,] = blocks
        size = [shape[0], -(-shape[1] // self.group_size), self.group_size * self.bits // 8]
        self.tensors[f"{blocks}_shape"] = self._constant(np.array(size), f"{blocks}_shape")
        inputs = [f"{name}_levels", f"{blocks}_shape"]
        return [self.onnx.helper.make_node("Reshape", inputs, [blocks], f"{node.name}_blocks")]

    def _multiply(self, node: Any, name: str, shape: tuple[int, ...], output: str) -> Any:
        inputs = [node.input[0], f"{name}_blocks", *self._scales(name)]
        attributes = {"N": shape[0], "K": shape[1], "bits": self.bits, "block_size": self.group_size}
        if self.bits == 8:
            attributes["accuracy_level"] = INTEGER_PRODUCTS
        return self._make("MatMulNBits", inputs, [output], node.name, **attributes)

    def _store(self, name: str, rows: Floats) -> str:
        key = (rows.shape, hashlib.sha256(rows.tobytes()).digest())
        if key in self.known:
            return self.known[key]
        self.known[key] = name
        allowed = INT4 if self.bits == 4 else INT7
        blocks = round_blocks(rows, group_size=self.group_size, symmetric=self.symmetric, allowed=allowed)
        levels = self._packed(blocks.levels).reshape(len(rows), -1)  # (rows, bytes)
        self.tensors[f"{name}_levels"] = self._constant(levels, f"{name}_levels")
        self.tensors[f"{name}_scale"] = self._constant(blocks.scales, f"{name}_scale")
        if not self.symmetric:
            self.tensors[f"{name}_zero"] = self._constant(self._packed(blocks.zeros), f"{name}_zero")
        return name

    def _packed(self, values: Bytes) -> Bytes:
        return pack(values) if self.bits == 4 else values

    def _scales(self, name: str) -> list[str]:
        return [f"{name}_scale"] if self.symmetric else [f"{name}_scale", f"{name}_zero"]

    def _constant(self, values: Any, name: str) -> Any:
        return self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)

    def _make(self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: int) -> Any:
        return self.onnx.helper.make_node(kind, inputs, outputs, name, domain=DOMAIN, **attributes)
