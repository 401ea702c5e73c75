"""Inputs of a given shape, for passes whose time, memory or arithmetic is measured."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.graph_model import GraphModel
from hf_shrink.inputs.positions import max_positions
from hf_shrink.inputs.tasks import inner_model, model_config

SECOND_OF_SOUND = 16_000


def sample_inputs(model: Any, *, batch_size: int = 1, sequence_length: int = 128) -> dict[str, Tensor]:
    """Random inputs that a model takes, the same at every call.

    Args:
        model: A transformers model or a `GraphModel`.
        batch_size: B, rows.
        sequence_length: T, tokens of text a row, clipped to the model's positions; images and sound have their own.

    Returns:
        Tensors on the model's device: `input_ids` and `attention_mask` (B, T), `pixel_values`, …

    Raises:
        ShrinkError: If the model does not tell what it takes.
    """
    config = model_config(model)
    main = main_input(model)
    generator = torch.Generator().manual_seed(0)
    try:
        made = SAMPLES[main](config, batch_size, sequence_length, generator)
    except (KeyError, AttributeError) as error:  # another kind of input, or a config without its shape
        raise ShrinkError(
            f"`inputs` must be given for a {type(model).__name__}, whose config and main input {main!r} do not tell "
            f"their shape ({error}). Give a mapping of tensors."
        ) from error
    return {name: tensor.to(model.device) for name, tensor in made.items()}


def main_input(model: Any) -> str:
    """Name of the input that the others accompany.

    Args:
        model: A transformers model or a `GraphModel`.

    Returns:
        Such as "input_ids"; empty where the model does not tell.
    """
    if isinstance(model, GraphModel):
        return next((name for name in model.inputs if name in SAMPLES), "")
    inner = inner_model(model) if isinstance(model, nn.Module) else model
    return inner.main_input_name if isinstance(inner, PreTrainedModel) else ""


def clip_length(model: Any, sequence_length: int) -> int:
    """A sequence length that the model has positions for.

    Args:
        model: A transformers model or a `GraphModel`.
        sequence_length: Tokens wanted.

    Returns:
        Tokens, not more than the model's positions.
    """
    config = model_config(model)
    limit = None if config is None else max_positions(config)
    return sequence_length if limit is None else min(sequence_length, limit)


def _text(config: Any, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    limit = max_positions(config)
    length = length if limit is None else min(length, limit)
    text = config.get_text_config()
    end = text.eos_token_id[0] if isinstance(text.eos_token_id, list) else text.eos_token_id
    # Padding inside a row would shift positions in some models, and ends of text would move a classifier's pooling.
    plain = torch.tensor([i for i in range(text.vocab_size) if i not in (text.pad_token_id, end)])
    ids = plain[torch.randint(len(plain), (rows, length), generator=generator)]  # (B, T)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if config.is_encoder_decoder:
        if end is not None:
            ids[:, -1] = end
        made["decoder_input_ids"] = ids.clone()
    return made


def _image(config: Any, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return {"pixel_values": torch.randn(rows, config.num_channels, height, width, generator=generator)}


def _sound(config: Any, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_values": torch.randn(rows, SECOND_OF_SOUND, generator=generator)}


def _spectrogram(config: Any, rows: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    frames = 2 * config.max_source_positions  # the encoder's first convolutions halve them
    made = {"input_features": torch.randn(rows, config.num_mel_bins, frames, generator=generator)}
    if config.is_encoder_decoder:
        made["decoder_input_ids"] = torch.full((rows, 1), config.decoder_start_token_id)
    return made


SAMPLES: Mapping[str, Callable[[Any, int, int, torch.Generator], dict[str, Tensor]]] = {
    "input_ids": _text,
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": _spectrogram,
}
