"""Students cut from their teacher: whole layers, copied with everything around them."""

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_shrink.architectures.description import LayerStack
from hf_shrink.architectures.known import architecture_of
from hf_shrink.architectures.layers import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model
from hf_shrink.versions import base_model


def make_student(
    teacher: PreTrainedModel | str | Path,
    num_hidden_layers: int | None = None,
    *,
    layers: Sequence[int] | None = None,
    encoder_layers: int | Sequence[int] | None = None,
    decoder_layers: int | Sequence[int] | None = None,
) -> PreTrainedModel:
    """Make a student from some of its teacher's layers (as DistilBERT, arXiv:1910.01108, and Distil-Whisper do).

    The student is a copy: embeddings, heads, ties, dtype and device are the teacher's, and the teacher stays as it
    is. Stock `from_pretrained` loads what its `save_pretrained` writes. All of its parameters train, even where the
    teacher's are frozen. `config.hf_shrink_layers` says which layer came from which, such as `{"encoder": [0, 5]}`.

    Args:
        teacher: A transformers model, a folder or a Hub id.
        num_hidden_layers: How many layers to keep, at least 1: of the teacher's N, layer i of n is the teacher's
            i * (N - 1) / (n - 1), rounded, ties down. So the first and the last are among them (2 of 6 keeps 0 and 5,
            3 of 6 keeps 0, 2 and 5); a single one is the first. Where there are an encoder and a decoder, both keep
            this many.
        layers: The teacher's layers to keep, counted from 0, in rising order; of encoder and decoder where there
            are both.
        encoder_layers: Number or list for the encoder alone; a stack that is not named keeps all of its layers.
        decoder_layers: Number or list for the decoder alone.

    Returns:
        The student, in evaluation mode.

    Raises:
        ShrinkError: If the layers are not the teacher's, or the teacher cannot be copied.
    """
    if num_hidden_layers is layers is encoder_layers is decoder_layers is None:
        raise ShrinkError("`num_hidden_layers` must be given, or `layers`, got neither. Say what the student keeps.")
    model = _check_teacher(load_model(teacher))
    keep = _choose(
        {name: len(stack) for name, stack in find_layers(model).items()},
        type(model).__name__,
        {"num_hidden_layers": num_hidden_layers, "layers": layers},
        {"encoder": encoder_layers, "decoder": decoder_layers},
    )
    student = _copy_layers(model, keep)
    for stack in architecture_of(model).stacks:
        if stack.name in keep:
            _place_layers(student, model, stack, keep[stack.name])
            _cut_vectors(student, stack, keep[stack.name])
            _cut_generation_lists(student, stack, keep[stack.name])
    _write_config(student, keep)
    return _set_trainable(student).eval()


def spread_layers(count: int, depth: int) -> list[int]:
    """Layers in even steps from the first to the last.

    Args:
        count: How many to choose, in [1, depth].
        depth: How many there are.

    Returns:
        Rising indices; layer i is i * (depth - 1) / (count - 1), rounded, ties down.
    """
    if count == 1:
        return [0]
    steps = count - 1
    return [(2 * i * (depth - 1) + steps - 1) // (2 * steps) for i in range(count)]


def _check_teacher(model: Any) -> PreTrainedModel:
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`teacher` must be a transformers model, got {type(model).__name__}. Give the plain one: for PEFT "
            "merge_and_unload(), for ONNX the model it was exported from."
        )
    weights = list(model.parameters())
    if "quantization_config" in vars(model.config) or not all(w.is_floating_point() for w in weights):
        raise ShrinkError(
            f"`teacher` must have float weights to cut a student from, got a quantized {type(model).__name__}. "
            "Load it without quantization_config; it can still teach quantized."
        )
    if any(weight.is_meta for weight in weights):
        raise ShrinkError(
            f"`teacher` must be in memory, got a {type(model).__name__} with weights on the meta device. "
            "Load it without offloading."
        )
    return model


def _choose(
    depths: Mapping[str, int], class_name: str, whole: Mapping[str, Any], single: Mapping[str, Any]
) -> dict[str, list[int]]:
    """Layers to keep, by stack, from what the user gave for all stacks (`whole`) and for one (`single`)."""
    given = {name: value for name, value in whole.items() if value is not None}
    stacks = {name: value for name, value in single.items() if value is not None}
    names = [*given, *(f"{name}_layers" for name in stacks)]
    if given and len(names) > 1:
        raise ShrinkError(
            f"`{names[0]}` must be given alone, got {' and '.join(names[1:])} beside it. Say in one way what to keep."
        )
    for name in stacks:
        if name not in depths:
            raise ShrinkError(
                f"`{name}_layers` must be left out for {class_name}, which has no {name}, got {stacks[name]}. "
                "Use `num_hidden_layers` or `layers`."
            )
    if given:
        argument, value = next(iter(given.items()))
        return {name: _indices(value, depth, name, argument) for name, depth in depths.items()}
    return {
        name: _indices(stacks[name], depth, name, f"{name}_layers") if name in stacks else list(range(depth))
        for name, depth in depths.items()
    }


def _indices(value: Any, depth: int, stack: str, argument: str) -> list[int]:
    if argument != "layers" and _is_whole(value):
        if not 1 <= value <= depth:
            raise ShrinkError(
                f"`{argument}` must be in [1, {depth}] (the teacher's {stack} layers), got {value}. "
                "A student keeps at least one layer and has no more than its teacher."
            )
        return spread_layers(int(value), depth)
    if argument == "num_hidden_layers":
        raise ShrinkError(f"`{argument}` must be a whole number, got {value!r}. For a list of layers use `layers`.")
    if not isinstance(value, Sequence) or not all(map(_is_whole, value)):
        raise ShrinkError(f"`{argument}` must be a list of whole numbers, got {value!r}. Write it as [0, 2, 5].")
    chosen = [int(index) for index in value]
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < depth:
        raise ShrinkError(
            f"`{argument}` must hold rising indices in [0, {depth - 1}] (the teacher's {stack} layers), each once, "
            f"got {chosen}. Count from 0 and keep at least one."
        )
    return chosen


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _copy_layers(model: PreTrainedModel, keep: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    memo: dict[int, Any] = {}
    for name, stack in find_layers(model).items():
        # Once the memo holds a stack's copy, deepcopy takes that one, and the layers left out are never copied. The
        # memo is one for all, so that tied weights stay tied and modules share one config.
        copied = memo[id(stack)] = nn.ModuleList()
        copied.extend(copy.deepcopy(stack[index], memo) for index in keep[name])
    student = copy.deepcopy(model, memo)
    if "_original_forward" in vars(student):  # a Trainer left its mixed precision around the teacher
        del student.forward, student._original_forward
    return student


def _place_layers(student: PreTrainedModel, teacher: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    """Let what depends on a layer's place follow it to its new one."""
    layers = find_layers(student)[stack.name]
    for new, (old, layer) in enumerate(zip(keep, layers, strict=True)):
        for path in stack.layer_index:
            if module := _find(layer, path):
                module.layer_idx = new
        if stack.on_move is not None and new != old:
            stack.on_move(layer, old, new)
    if keep[0] != 0:
        _replace_first(layers[0], find_layers(teacher)[stack.name][0], stack)


def _replace_first(layer: nn.Module, teacher_layer: nn.Module, stack: LayerStack) -> None:
    """Give the new first layer what the old one held for all."""
    for first in stack.first_layer_modules:
        around, _, name = first.path.rpartition(".")
        holder = layer.get_submodule(around)
        holder.add_module(name, copy.deepcopy(teacher_layer.get_submodule(first.path)))
        setattr(holder, first.flag, True)


def _cut_vectors(student: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    parameters = dict(student.named_parameters())
    for path in stack.layer_vectors:
        if path in parameters:
            around, _, name = path.rpartition(".")
            entries = [0, *(index + 1 for index in keep)]  # the embeddings' own comes first
            setattr(student.get_submodule(around), name, nn.Parameter(parameters[path].detach()[entries]))


def _cut_generation_lists(student: PreTrainedModel, stack: LayerStack, keep: Sequence[int]) -> None:
    for name in stack.generation_lists:
        pairs = vars(student.generation_config).get(name) if student.can_generate() else None
        if pairs is None:
            continue
        kept = [[keep.index(layer), head] for layer, head in pairs if layer in keep]
        if kept:
            setattr(student.generation_config, name, kept)
        else:
            delattr(
                student.generation_config, name
            )  # without it generate says what is missing; an empty one crashes it


def _write_config(student: PreTrainedModel, keep: Mapping[str, list[int]]) -> None:
    architecture = architecture_of(student)
    configs = {id(m.config): m.config for m in student.modules() if isinstance(m, PreTrainedModel)}
    for config in configs.values():
        for stack in architecture.stacks:
            if stack.name in keep:
                _cut_config(config, stack, keep[stack.name])
        config.hf_shrink_layers = {name: list(indices) for name, indices in keep.items()}
    for stack in architecture.stacks:
        if stack.copied_config is not None and stack.name in keep:
            path, depth_field = stack.copied_config
            setattr(base_model(student).get_submodule(path).config, depth_field, len(keep[stack.name]))


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


def _set_trainable(student: PreTrainedModel) -> PreTrainedModel:
    student.requires_grad_(True)
    for path in architecture_of(student).frozen:
        if module := _find(base_model(student), path):
            module.requires_grad_(False)
    return student


def _find(module: nn.Module, path: str) -> Any:
    return dict(module.named_modules()).get(path)
