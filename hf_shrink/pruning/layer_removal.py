"""Layers taken out of a model, which is then shallower and faster."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_shrink.architectures.layer_copies import copy_layers
from hf_shrink.architectures.layers import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.float_models import check_float_model
from hf_shrink.inputs.models import load_model


def drop_layers(
    model: PreTrainedModel | str | Path,
    layers: Sequence[int] | None = None,
    *,
    encoder_layers: Sequence[int] | None = None,
    decoder_layers: Sequence[int] | None = None,
) -> PreTrainedModel:
    """Take layers out, as ShortGPT (arXiv:2403.03853) does with the least important ones.

    Each layer passes what it reads on to the next and adds to it; without the layer that goes on unchanged. Stock
    `from_pretrained` loads what `save_pretrained` writes. `config.hf_shrink_layers` says which layers stayed, such as
    `{"encoder": [0, 1, 4, 5]}`. `layer_importance` finds those to drop.

    Args:
        model: A transformers model of a known family, a folder or a Hub id; an instance is left as it is.
        layers: Those to drop, counted from 0, in any order; of encoder and decoder where there are both.
        encoder_layers: Of the encoder alone; a stack that is not named keeps all of its layers.
        decoder_layers: Of the decoder alone.

    Returns:
        A smaller copy in the model's mode (training or evaluation). What is frozen in the model is frozen there.

    Raises:
        ShrinkError: If the layers are not the model's, or none would stay, or the model cannot be copied.
    """
    stacks = {"encoder": encoder_layers, "decoder": decoder_layers}
    named = [f"{name}_layers" for name, given in stacks.items() if given is not None]
    if layers is None and not named:
        raise ShrinkError("`layers` must be given, got None. Say which to drop, such as [3, 4].")
    if layers is not None and named:
        raise ShrinkError(
            f"`layers` must be given alone, got {' and '.join(named)} beside it. Say in one way what to drop."
        )
    loaded = check_float_model(load_model(model), "model", "to drop layers", "Drop layers before you quantize.")
    depths = {name: len(stack) for name, stack in find_layers(loaded).items()}
    if layers is not None:
        dropped = {name: _check_layers(layers, depth, name, "layers") for name, depth in depths.items()}
    else:
        dropped = _of_stacks(stacks, depths, type(loaded).__name__)
    keep = {name: [i for i in range(depth) if i not in dropped.get(name, ())] for name, depth in depths.items()}
    return copy_layers(loaded, keep)


def _of_stacks(
    stacks: Mapping[str, Sequence[int] | None], depths: Mapping[str, int], class_name: str
) -> dict[str, set[int]]:
    given = {name: layers for name, layers in stacks.items() if layers is not None}
    for name, layers in given.items():
        if name not in depths:
            raise ShrinkError(
                f"`{name}_layers` must be left out for {class_name}, which has no {name}, got {layers}. Use `layers`."
            )
    return {name: _check_layers(layers, depths[name], name, f"{name}_layers") for name, layers in given.items()}


def _check_layers(layers: Any, depth: int, stack: str, argument: str) -> set[int]:
    if not isinstance(layers, Sequence) or not all(map(_is_whole, layers)):
        raise ShrinkError(f"`{argument}` must be a list of whole numbers, got {layers!r}. Write it as [3, 4].")
    chosen = [int(index) for index in layers]
    if not chosen or len(set(chosen)) < len(chosen) or not 0 <= min(chosen) <= max(chosen) < depth:
        raise ShrinkError(
            f"`{argument}` must hold at least one index in [0, {depth - 1}] (the model's {stack} layers), each once, "
            f"got {chosen}. Count from 0."
        )
    if len(chosen) == depth:
        raise ShrinkError(
            f"`{argument}` must leave at least one of the model's {depth} {stack} layers, got {chosen}. Drop fewer."
        )
    return set(chosen)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
