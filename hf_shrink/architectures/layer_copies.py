"""Models with some of their layers: whole ones, copied with everything around them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_shrink.architectures.description import LayerStack
from hf_shrink.architectures.known import architecture_of
from hf_shrink.architectures.layers import find_layers
from hf_shrink.versions import base_model


def copy_layers(model: PreTrainedModel, keep: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    """Copy a model with some of its layers.

    Embeddings, heads, ties, dtype and device are the model's, and so are its mode and what of it is frozen. What
    depends on a layer's place follows it. Stock `from_pretrained` loads what `save_pretrained` writes of the copy.
    `config.hf_shrink_layers` says which layer came from which, such as `{"encoder": [0, 5]}`.

    Args:
        model: Of a known family, with any head; it is left as it is.
        keep: For each stack that the model has, by name, the layers to keep: at least one, counted from 0, in rising
            order.

    Returns:
        The copy; it shares no tensor with the model.
    """
    smaller = _copy_chosen(model, keep)
    for stack in architecture_of(model).stacks:
        if stack.name in keep:
            _place_layers(smaller, model, stack, keep[stack.name])
            _cut_vectors(smaller, stack, keep[stack.name])
            _cut_generation_lists(smaller, stack, keep[stack.name])
    _write_config(smaller, keep)
    return smaller


def _copy_chosen(model: PreTrainedModel, keep: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    memo: dict[int, Any] = {}
    for name, stack in find_layers(model).items():
        # Once the memo holds a stack's copy, deepcopy takes that one, and the layers left out are never copied. The
        # memo is one for all, so that tied weights stay tied and modules share one config.
        copied = memo[id(stack)] = nn.ModuleList().train(stack.training)
        copied.extend(copy.deepcopy(stack[index], memo) for index in keep[name])
    smaller = copy.deepcopy(model, memo)
    if "_original_forward" in vars(smaller):  # a Trainer left its mixed precision around the model
        del smaller.forward, smaller._original_forward
    return smaller


def _place_layers(smaller: PreTrainedModel, model: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    """Let what depends on a layer's place follow it to its new one."""
    layers = find_layers(smaller)[stack.name]
    for new, (old, layer) in enumerate(zip(keep, layers, strict=True)):
        for path in stack.layer_index:
            if module := _find(layer, path):
                module.layer_idx = new
        if stack.on_move is not None and new != old:
            stack.on_move(layer, old, new)
    if keep[0] != 0:
        _replace_first(layers[0], find_layers(model)[stack.name][0], stack)


def _replace_first(layer: nn.Module, old_layer: nn.Module, stack: LayerStack) -> None:
    """Give the new first layer what the old one held for all."""
    for first in stack.first_layer_modules:
        around, _, name = first.path.rpartition(".")
        holder = layer.get_submodule(around)
        holder.add_module(name, copy.deepcopy(old_layer.get_submodule(first.path)))
        setattr(holder, first.flag, True)


def _cut_vectors(smaller: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    parameters = dict(smaller.named_parameters())
    for path in stack.layer_vectors:
        if path in parameters:
            around, _, name = path.rpartition(".")
            vector, entries = parameters[path], [0, *(index + 1 for index in keep)]  # the embeddings' own comes first
            cut = nn.Parameter(vector.detach()[entries], requires_grad=vector.requires_grad)
            setattr(smaller.get_submodule(around), name, cut)


def _cut_generation_lists(smaller: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    for name in stack.generation_lists:
        pairs = vars(smaller.generation_config).get(name) if smaller.can_generate() else None
        if pairs is None:
            continue
        kept = [[keep.index(layer), head] for layer, head in pairs if layer in keep]
        if kept:
            setattr(smaller.generation_config, name, kept)
        else:
            # Without it generate says what is missing; an empty one crashes it.
            delattr(smaller.generation_config, name)


def _write_config(smaller: PreTrainedModel, keep: Mapping[str, Sequence[int]]) -> None:
    architecture = architecture_of(smaller)
    configs = {id(m.config): m.config for m in smaller.modules() if isinstance(m, PreTrainedModel)}
    for config in configs.values():
        for stack in architecture.stacks:
            if stack.name in keep:
                _cut_config(config, stack, keep[stack.name])
        config.hf_shrink_layers = {name: list(indices) for name, indices in keep.items()}
    for stack in architecture.stacks:
        if stack.copied_config is not None and stack.name in keep:
            path, depth_field = stack.copied_config
            setattr(base_model(smaller).get_submodule(path).config, depth_field, len(keep[stack.name]))


def _cut_config(config: PretrainedConfig, stack: LayerStack, keep: Sequence[int]) -> None:
    depth = getattr(config, stack.depth_fields[0])
    for name in stack.layer_lists:
        if (values := getattr(config, name)) is not None:
            setattr(config, name, [values[index] for index in keep])
    for name in stack.layer_counts:
        if (count := getattr(config, name)) < depth:  # a count beyond the depth, often the default, says nothing
            setattr(config, name, sum(index < count for index in keep))
    for name in stack.depth_fields:
        setattr(config, name, len(keep))


def _find(module: nn.Module, path: str) -> Any:
    return dict(module.named_modules()).get(path)
