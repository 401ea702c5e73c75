"""What exported graphs have in common: called by name as transformers models are, on the CPU."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig
from transformers.modeling_outputs import ModelOutput

from hf_shrink.errors import ShrinkError


class GraphModel(ABC):
    """A folder with one graph and config.json; each runtime has a subclass.

    Args:
        file: The graph.

    Attributes:
        path: The folder.
        file: The graph.
        config: The transformers config beside it.
        device: Always the CPU.

    Raises:
        ShrinkError: If there is no config.json.
    """

    device = torch.device("cpu")

    def __init__(self, file: Path) -> None:
        self.file = file
        self.path = file.parent
        if not (self.path / "config.json").is_file():
            raise ShrinkError(
                f"`model` must hold a config.json beside the graph, but {self.path} does not. Copy it there."
            )
        self.config = AutoConfig.from_pretrained(self.path)

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, type | None]:
        """The inputs that the graph declares, with their types; None for a type that is taken as it comes."""

    @abstractmethod
    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            feed: All declared inputs.

        Returns:
            All outputs by name.
        """

    @abstractmethod
    def with_threads(self, threads: int) -> "GraphModel":
        """The same graph with another number of threads, which is fixed when it is loaded.

        Args:
            threads: Threads inside one operator.

        Returns:
            A model; itself where the number is the same.
        """

    @abstractmethod
    def weight_types(self) -> set[str]:
        """Types of its weight matrices.

        Returns:
            Such as {"float32", "int8"}.
        """

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
        if "token_type_ids" in self.inputs and inputs.get("token_type_ids") is None and "input_ids" in inputs:
            inputs["token_type_ids"] = np.zeros(inputs["input_ids"].shape, np.int64)  # what float models take without
        if missing := [name for name in self.inputs if inputs.get(name) is None]:
            raise ShrinkError(
                f"`inputs` must hold all that the graph takes, {list(self.inputs)}, but {missing} are missing. "
                "Tokenize with the tokenizer that lies beside the graph."
            )
        feed = {name: _array(inputs[name], kind) for name, kind in self.inputs.items()}
        return ModelOutput({name: torch.from_numpy(values) for name, values in self.run(feed).items()})

    def eval(self) -> "GraphModel":
        """Do nothing: a graph has no training mode.

        Returns:
            The model itself.
        """
        return self

    def to(self, device: str | torch.device) -> "GraphModel":
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
                f"`device` must be 'cpu' for an exported graph, got {str(device)!r}. Run the float model there."
            )
        return self


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that is none.

    Args:
        threads: Threads, or None.

    Raises:
        ShrinkError: If it is below 1.
    """
    if threads is not None and not threads >= 1:
        raise ShrinkError(f"`threads` must be at least 1, got {threads}. None takes every physical core.")


def _array(value: Any, kind: type | None) -> NDArray[Any]:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return np.ascontiguousarray(array, dtype=array.dtype if kind is None else kind)
