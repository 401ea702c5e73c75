"""Exported language models behind transformers' own `generate`."""

from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class GraphGenerator(PreTrainedModel, GenerationMixin):
    """A graph with a cache as the model that `generate` drives: all its strategies and stopping criteria hold.

    Args:
        graph: A `GraphModel` whose calls take and give `past_key_values`.
    """

    main_input_name = "input_ids"

    def __init__(self, graph: Any) -> None:
        super().__init__(graph.config)
        self.graph = graph
        self.generation_config = graph.generation_config

    @property
    def device(self) -> torch.device:
        """Where the graph runs."""
        return self.graph.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits."""
        return torch.float32

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Run the graph.

        Args:
            input_ids: Shape (B, T), the tokens after the past.
            attention_mask: Shape (B, P + T).
            position_ids: Shape (B, T).
            past_key_values: Cache of P tokens.

        Returns:
            Logits, shape (B, T, V), and the cache of P + T tokens.
        """
        outputs = self.graph(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
        )
        return CausalLMOutputWithPast(logits=outputs.logits, past_key_values=outputs.past_key_values)
