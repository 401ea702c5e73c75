"""An exported graph that is called as a transformers model is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig
from transformers.modeling_outputs import ModelOutput

from hf_shrink.errors import ShrinkError, require

NUMPY_TYPES: Mapping[str, type] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


class OnnxModel:
    """A folder in Optimum's ONNX layout (one graph and config.json), run by plain onnxruntime on the CPU.

    Args:
        path: The folder, or one of several .onnx files in it.
        threads: Threads inside one operator; None leaves it to onnxruntime, which takes every physical core.

    Attributes:
        path: The folder.
        file: The graph.
        config: The transformers config beside it.
        session: onnxruntime's session.
        device: Always the CPU.

    Raises:
        ShrinkError: If the folder has no graph, several, or no config.json, or the graph cannot be loaded.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.file = find_graph(Path(path).expanduser())
        self.path = self.file.parent
        if not (self.path / "config.json").is_file():
            raise ShrinkError(
                f"`model` must hold a config.json beside the graph, but {self.path} does not. Copy it there."
            )
        self.config = AutoConfig.from_pretrained(self.path)
        self.session = _session(self.file, threads)
        self._inputs = {node.name: node.type for node in self.session.get_inputs()}
        self._outputs = [node.name for node in self.session.get_outputs()]

    def __call__(self, **inputs: Any) -> ModelOutput:
        """Run the graph.

        Args:
            **inputs: Tensors or arrays of shape (B, …) by name; those that the graph does not declare, such as labels,
                are left out.

        Returns:
            The graph's outputs as CPU tensors, by name: `logits` or `last_hidden_state`, whatever was exported.

        Raises:
            ShrinkError: If an input that the graph declares is missing.
        """
        if "token_type_ids" in self._inputs and inputs.get("token_type_ids") is None and "input_ids" in inputs:
            inputs["token_type_ids"] = np.zeros(inputs["input_ids"].shape, np.int64)  # what float models take without
        if missing := [name for name in self._inputs if inputs.get(name) is None]:
            raise ShrinkError(
                f"`inputs` must hold all that the graph takes, {list(self._inputs)}, but {missing} are missing. "
                "Tokenize with the tokenizer that lies beside the graph."
            )
        feed = {name: _array(inputs[name], kind) for name, kind in self._inputs.items()}
        values = self.session.run(None, feed)
        return ModelOutput({name: torch.from_numpy(v) for name, v in zip(self._outputs, values, strict=True)})

    def eval(self) -> "OnnxModel":
        """Do nothing: a graph has no training mode.

        Returns:
            The model itself.
        """
        return self

    def to(self, device: str | torch.device) -> "OnnxModel":
        """Stay on the CPU.

        Args:
            device: "cpu".

        Returns:
            The model itself.

        Raises:
            ShrinkError: If another device is asked for.
        """
        if torch.device(device).type != "cpu":
            raise ShrinkError(
                f"`device` must be 'cpu' for an ONNX model, got {str(device)!r}. Run the float model there."
            )
        return self


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
    if threads is not None and not threads >= 1:
        raise ShrinkError(f"`threads` must be at least 1, got {threads}. None takes every physical core.")
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


def _array(value: Any, kind: str) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return np.ascontiguousarray(array, dtype=NUMPY_TYPES.get(kind, array.dtype))
