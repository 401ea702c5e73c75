"""Queries, keys and values of chosen layers, caught by hooks on their projections while a model runs.

`output_attentions` is no way to them: transformers fills it from its eager attention alone. Under SDPA it hands out an
empty tuple without a word, or, for some models of transformers 4, runs the slow attention after all.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_shrink.architectures import Attention, architecture_of, find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model

Outputs = dict[tuple[int, str], Tensor]  # by layer, counted from 0, and path of the projection


class Projected(NamedTuple):
    """What the projections of one layer put out: before rotary positions and norms, its heads side by side.

    Queries have shape (B, T, heads · head size), keys and values (B, T, key and value heads · head size).
    """

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class AttentionLayout:
    """How a model's self-attention is laid out.

    Args:
        stack: Name of the stack of layers.
        attention: Where the projections are.
        heads: Number of query heads.
        key_value_heads: Number of key and value heads.
        head_size: Width of one.
        causal: Whether a token sees only itself and those before it.
        plain: Whether the scores are the products of queries and keys over the root of the head size.
    """

    stack: str
    attention: Attention
    heads: int
    key_value_heads: int
    head_size: int
    causal: bool
    plain: bool

    @property
    def widths(self) -> tuple[int, int, int]:
        """Width of the queries, the keys and the values."""
        return (self.heads * self.head_size, *(2 * (self.key_value_heads * self.head_size,)))

    def projected(self, outputs: Mapping[str, Tensor]) -> Projected:
        """Queries, keys and values of one layer.

        Args:
            outputs: What its projections put out, by path.

        Returns:
            The three of them, also where one module holds them side by side.
        """
        if self.attention.fused:
            return Projected(*outputs[self.attention.query].split(self.widths, dim=-1))
        return Projected(*(outputs[path] for path in (self.attention.query, self.attention.key, self.attention.value)))


def attention_layout(config: PretrainedConfig, argument: str, weight: str) -> AttentionLayout:
    """Find how a model's self-attention is laid out.

    Args:
        config: Of a model with one stack of layers.
        argument: What the user calls the model.
        weight: The argument that asks for it.

    Returns:
        Its layout.

    Raises:
        ShrinkError: If the model's family is unknown.
    """
    try:
        architecture = architecture_of(config)
    except ShrinkError as error:
        raise ShrinkError(
            f"`{weight}` must be 0 for this `{argument}` ({config.model_type}): where its queries, keys and values "
            "are made is not known. Describe its family with hf_shrink.architectures.register_architecture()."
        ) from error
    stack, fields = architecture.stacks[0], config.to_dict()
    heads: int = getattr(config, stack.heads_field)
    size = None if stack.head_dim_field is None else fields.get(stack.head_dim_field)  # not every config has one
    pairs = stack.attention.plain_when
    return AttentionLayout(
        stack=stack.name,
        attention=stack.attention,
        heads=heads,
        key_value_heads=heads if stack.key_value_heads_field is None else getattr(config, stack.key_value_heads_field),
        head_size=size or getattr(config, architecture.hidden_field) // heads,
        causal=stack.name == "decoder" or fields.get("is_decoder", False),
        plain=pairs is not None and all(fields.get(name, value) == value for name, value in pairs.items()),
    )


@dataclass(frozen=True)
class AttentionCapture:
    """Catches queries, keys and values.

    Args:
        layout: Of the model.
        layers: Counted from 0; one may come several times.
    """

    layout: AttentionLayout
    layers: tuple[int, ...]

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[list[Projected]]:
        """Hook into a model for one forward.

        Args:
            model: As it is without its wrappers, or with a PEFT adapter, whose part in the projections counts.

        Yields:
            A list that is filled at the end: one entry for each of the layers, with gradients where there are some.

        Raises:
            ShrinkError: If a projection did not run.
        """
        stack, outputs, found = find_layers(inner_model(model))[self.layout.stack], Outputs(), list[Projected]()
        paths = {self.layout.attention.query, self.layout.attention.key, self.layout.attention.value}
        with ExitStack() as hooks:
            for layer in set(self.layers):
                for path in paths:
                    hook = partial(_keep, outputs, (layer, path), torch.is_grad_enabled())
                    hooks.callback(stack[layer].get_submodule(path).register_forward_hook(hook).remove)
            yield found
        for layer in self.layers:
            if missing := sorted(path for path in paths if (layer, path) not in outputs):
                raise ShrinkError(
                    f"`model` must run the projection {missing[0]} of layer {layer} as a module, got no output of it: "
                    "there would be nothing to compare. Leave out what replaces or compiles the attention."
                )
            found.append(self.layout.projected({path: outputs[layer, path] for path in paths}))


def watching(model: nn.Module, capture: AttentionCapture | None) -> AbstractContextManager[list[Projected]]:
    """Watch a model where something is wanted of it.

    Args:
        model: As for `AttentionCapture.watch`.
        capture: What is wanted, or None.

    Returns:
        A context with the list that is filled at its end; it stays empty where nothing is wanted.
    """
    return nullcontext([]) if capture is None else capture.watch(model)


def _keep(outputs: Outputs, place: tuple[int, str], gradients: bool, module: Any, args: Any, output: Tensor) -> None:
    if gradients and not torch.is_grad_enabled():
        raise ShrinkError(
            "`gradient_checkpointing_kwargs` must be {'use_reentrant': False} where attention or relations are "
            "compared, got reentrant checkpoints, within which no gradient reaches the projections. Set it so."
        )
    outputs[place] = output
