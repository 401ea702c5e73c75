"""A graph of OpenVINO that is called as a transformers model is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.graph_feed import GraphInput
from hf_shrink.inputs.graph_model import GraphModel, check_threads

GRAPH = "openvino_model.xml"


class OpenVinoModel(GraphModel):
    """A folder in the layout of Optimum Intel (one graph and config.json), run by plain OpenVINO on the CPU.

    Args:
        path: The folder.
        threads: Threads of one inference; None leaves it to OpenVINO, which takes every physical core.

    Attributes:
        compiled: OpenVINO's compiled model.

    Raises:
        ShrinkError: If the folder has no graph or no config.json, or the graph cannot be loaded.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        file = Path(path).expanduser() / GRAPH
        if not file.is_file():
            raise ShrinkError(f"`model` must be a folder with {GRAPH}, got {path}. Export one with quantize().")
        super().__init__(file)
        check_threads(threads)
        self.threads = threads
        openvino = require("openvino", extra="openvino")
        settings = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16, which some CPUs take by themselves, changes answers
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self.compiled = openvino.Core().compile_model(file, "CPU", settings)
        except RuntimeError as error:
            raise ShrinkError(
                f"`model` must be a graph that OpenVINO can load, but {file.name} is not: {str(error)[:200]}. "
                "Export it again."
            ) from error
        self._inputs = declared_inputs(self.compiled)
        self._outputs = [port.any_name for port in self.compiled.outputs]

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
        results = self.compiled(dict(feed))
        return {name: np.array(results[i]) for i, name in enumerate(self._outputs)}  # the runtime reuses its memory

    def with_threads(self, threads: int) -> GraphModel:
        """The same graph with another number of threads.

        Args:
            threads: Threads of one inference.

        Returns:
            A model; itself where the number is the same.
        """
        return self if threads == self.threads else OpenVinoModel(self.path, threads=threads)

    def weight_types(self) -> set[str]:
        """Types of its weight matrices.

        Returns:
            Such as {"float32", "int8"}.
        """
        openvino = require("openvino", extra="openvino")
        constants = [op for op in openvino.Core().read_model(self.file).get_ops() if op.get_type_name() == "Constant"]
        kinds = {op.get_element_type().get_type_name() for op in constants if len(op.get_output_shape(0)) >= 2}
        return {WEIGHT_TYPES[kind] for kind in kinds if kind in WEIGHT_TYPES}


def declared_inputs(graph: Any) -> dict[str, GraphInput]:
    """What a graph takes.

    Args:
        graph: A model of OpenVINO, compiled or not.

    Returns:
        Its inputs by name.
    """
    return {
        port.any_name: GraphInput(
            port.element_type.to_dtype().type,
            tuple(size.get_length() if size.is_static else None for size in port.partial_shape),
        )
        for port in graph.inputs
    }


WEIGHT_TYPES = {  # other types hold indices and masks
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "uint8",
    "i4": "int4",
    "u4": "uint4",
}
