"""An exported graph that is called as a transformers model is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.graph_feed import GraphInput
from hf_shrink.inputs.graph_model import GraphModel, check_threads

NUMPY_TYPES: Mapping[str, type] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}

WEIGHT_TYPES = {  # of a graph's matrices; other types hold indices and masks
    "FLOAT": "float32",
    "FLOAT16": "float16",
    "BFLOAT16": "bfloat16",
    "DOUBLE": "float64",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT4": "int4",
    "UINT4": "uint4",
}


class OnnxModel(GraphModel):
    """A folder in Optimum's ONNX layout (one graph and config.json), run by plain onnxruntime on the CPU.

    Args:
        path: The folder, or one of several .onnx files in it.
        threads: Threads inside one operator; None leaves it to onnxruntime, which takes every physical core.

    Attributes:
        session: onnxruntime's session.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        super().__init__(find_graph(Path(path).expanduser()))
        self.session = _session(self.file, threads)
        self._inputs = {
            node.name: GraphInput(
                NUMPY_TYPES.get(node.type), tuple(d if isinstance(d, int) else None for d in node.shape)
            )
            for node in self.session.get_inputs()
        }
        self._outputs = [node.name for node in self.session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """The inputs that the graph declares."""
        return self._inputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            feed: All declared inputs.

        Returns:
            All outputs by name.
        """
        return dict(zip(self._outputs, self.session.run(None, dict(feed)), strict=True))

    def with_threads(self, threads: int) -> GraphModel:
        """The same graph with another number of threads.

        Args:
            threads: Threads inside one operator.

        Returns:
            A model; itself where the number is the same.
        """
        same = self.session.get_session_options().intra_op_num_threads == threads
        return self if same else OnnxModel(self.file, threads=threads)

    def weight_types(self) -> set[str]:
        """Types of its weight matrices.

        Returns:
            Such as {"float32", "int8"}.
        """
        onnx = require("onnx", extra="onnx")
        graph = onnx.load(self.file, load_external_data=False).graph
        kinds = {onnx.TensorProto.DataType.Name(w.data_type) for w in graph.initializer if len(w.dims) >= 2}
        return {WEIGHT_TYPES[kind] for kind in kinds if kind in WEIGHT_TYPES}


def find_graph(path: Path) -> Path:
    """The .onnx file that is meant.

    Args:
        path: A folder, or the file itself.

    Returns:
        The file.

    Raises:
        ShrinkError: If there is none, or more than one.
    """
    if path.suffix == ".onnx" and path.is_file():
        return path
    graphs = sorted(path.glob("*.onnx")) if path.is_dir() else []
    if not graphs:
        raise ShrinkError(f"`model` must be a folder with an .onnx file, got {path}. Export one with quantize().")
    if len(graphs) > 1:
        names = [graph.name for graph in graphs]
        raise ShrinkError(
            f"`model` must hold one .onnx file, but {path} has {names}. Give the path of the one you mean."
        )
    return graphs[0]


def _session(file: Path, threads: int | None) -> Any:
    check_threads(threads)
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no class but this
        raise ShrinkError(
            f"`model` must be a graph that onnxruntime can load, but {file.name} is not: {str(error)[:200]}. "
            "Export it again."
        ) from error
