"""What exported graphs have in common: called by name as transformers models are, on the CPU."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, GenerationConfig
from transformers.modeling_outputs import ModelOutput

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.generation import GraphGenerator
from hf_shrink.inputs.graph_feed import GraphInput, cache_from_outputs, cache_to_feed, complete_feed, is_cached


class GraphModel(ABC):
    """A folder with one graph and config.json; each runtime has a subclass.

    Args:
        file: The graph.

    Attributes:
        path: The folder.
        file: The graph.
        config: The transformers config beside it.
        generation_config: How it generates: as the file beside it says, or else the config.
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
        written = (self.path / "generation_config.json").is_file()
        self.generation_config = (
            GenerationConfig.from_pretrained(self.path) if written else GenerationConfig.from_model_config(self.config)
        )

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, GraphInput]:
        """The inputs that the graph declares."""

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
                are left out. A language model takes `past_key_values`, as it gave them for the tokens before.

        Returns:
            The graph's outputs as CPU tensors, by name: `logits` or `last_hidden_state`, whatever was exported, and of
            a language model `past_key_values`.

        Raises:
            ShrinkError: If an input that the graph declares is missing.
        """
        given = {**inputs, **cache_to_feed(inputs.get("past_key_values"))}
        feed = complete_feed(given, self.inputs)
        if missing := [name for name in self.inputs if name not in feed]:
            raise ShrinkError(
                f"`inputs` must hold all that the graph takes, {list(self.inputs)}, but {missing} are missing. "
                "Tokenize with the tokenizer that lies beside the graph."
            )
        arrays = {name: _array(feed[name], declared.dtype) for name, declared in self.inputs.items()}
        outputs: dict[str, Any] = {name: torch.from_numpy(values) for name, values in self.run(arrays).items()}
        if self.can_generate():
            outputs["past_key_values"] = cache_from_outputs(outputs)
        return ModelOutput(outputs)

    def forward(self, **inputs: Any) -> ModelOutput:
        """Run the graph: the name by which pipelines call it.

        Args:
            **inputs: As in a call.

        Returns:
            The outputs.
        """
        return self(**inputs)

    def can_generate(self) -> bool:
        """Whether it is a language model that goes on from its past.

        Returns:
            True or False.
        """
        return is_cached(self.inputs)

    def generate(self, inputs: torch.Tensor | None = None, **options: Any) -> Any:
        """Generate tokens with transformers' own `generate`.

        Args:
            inputs: Shape (B, T), the tokens to go on from; or give `input_ids` and `attention_mask` by name.
            **options: As transformers takes them.

        Returns:
            As transformers gives them: token ids of shape (B, T + new tokens) by default.

        Raises:
            ShrinkError: If the graph has no cache.
        """
        if not self.can_generate():
            raise ShrinkError(
                f"`model` must be a language model with a cache to generate, got {self.file.name}, which takes "
                f"{list(self.inputs)}. Export one with quantize()."
            )
        generator: Any = GraphGenerator(self)
        return generator.generate(inputs, **options)

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
