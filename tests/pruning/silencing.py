"""FFN units and heads set to zero, as masks leave them, in any family."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.architectures import LayerStack, architecture_of, find_layers
from hf_shrink.pruning.targets import as_rows

LIVE = (22, 9, 17, 13)  # of 40 units, by layer
GROUPED = ([[0], [0], [1], [0]], 2, 1)  # of 2 groups of 2 heads: what lives, the heads and groups that are left
SINGLE = ([[0, 2], [2], [2, 0], [0]], 2, 2)


def layers_of(model: nn.Module) -> list[tuple[LayerStack, int, nn.Module]]:
    """Every layer with its stack and its index in it."""
    layers = find_layers(model)
    return [
        (stack, index, layer)
        for stack in architecture_of(model).stacks
        for index, layer in enumerate(layers.get(stack.name, ()))
    ]


@torch.no_grad()
def silence(up: Iterable[nn.Module], down: nn.Module, dead: Sequence[int]) -> None:
    """Zero units as masks do: their rows and biases on the way in, their columns on the way out."""
    as_rows(down, down.weight)[:, dead] = 0
    for module in up:
        as_rows(module, module.weight)[dead] = 0
        if module.bias is not None:
            module.bias[dead] = 0


def kill_units(model: PreTrainedModel, live: Sequence[int] = LIVE, seed: int = 0) -> PreTrainedModel:
    """Let each layer keep another random set of FFN units."""
    generator = torch.Generator().manual_seed(seed)
    for stack, index, layer in layers_of(model):
        block = stack.feed_forward
        down = layer.get_submodule(block.down)
        dead = torch.randperm(40, generator=generator)[live[index] :]
        silence([layer.get_submodule(path) for path in (block.up, block.gate) if path], down, dead)
    return model


def kill_heads(model: PreTrainedModel, live: Sequence[Sequence[int]]) -> PreTrainedModel:
    """Let the attention blocks keep the heads named, block after block."""
    chosen = itertools.cycle(live)
    for query, key, value, output in _attentions(model):
        fused = query is key
        size = as_rows(query, query.weight).shape[0] // (12 if fused else 4)
        units = 4 if fused else as_rows(key, key.weight).shape[0] // size  # 2 under grouped queries
        kept = next(chosen)
        dead = [unit for unit in range(units) if unit not in kept]

        def wide(width, start=0, dead=dead):
            return [start + unit * width + i for unit in dead for i in range(width)]

        if fused:
            silence([query], output, wide(size))
            for part in (1, 2):
                silence([query], nn.Linear(12 * size, 1), wide(size, part * 4 * size))
            continue
        silence([query], output, wide(4 // units * size))
        silence([key, value], nn.Linear(units * size, 1), wide(size))
    return model


def _attentions(model: PreTrainedModel) -> Iterator[list[nn.Module]]:
    for stack, _, layer in layers_of(model):
        for attention in filter(None, (stack.attention, stack.cross_attention)):
            yield [
                layer.get_submodule(path)
                for path in (attention.query, attention.key, attention.value, attention.output)
            ]
