"""Students cut from their teacher: whole layers, copied with everything around them."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_shrink.architectures.known import architecture_of
from hf_shrink.architectures.layer_copies import copy_layers
from hf_shrink.architectures.layers import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.float_models import check_float_model
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
    quantized = "Load it without quantization_config; it can still teach quantized."
    model = check_float_model(load_model(teacher), "teacher", "to cut a student from", quantized)
    keep = _choose(
        {name: len(stack) for name, stack in find_layers(model).items()},
        type(model).__name__,
        {"num_hidden_layers": num_hidden_layers, "layers": layers},
        {"encoder": encoder_layers, "decoder": decoder_layers},
    )
    return _set_trainable(copy_layers(model, keep)).eval()


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


def _set_trainable(student: PreTrainedModel) -> PreTrainedModel:
    student.requires_grad_(True)
    modules = dict(base_model(student).named_modules())
    for path in architecture_of(student).frozen:
        if module := modules.get(path):
            module.requires_grad_(False)
    return student
