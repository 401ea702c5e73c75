"""One forward pass of any model: its inputs, its mode, its device."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model, model_config

# Their position ids begin after the padding token's id, so that many of max_position_embeddings are never used.
OFFSET_POSITIONS = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text", "esm")
LABELS = ("labels", "start_positions", "end_positions")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, and back into its own afterwards.

    Args:
        model: A module, or an `OnnxModel`, which has no other mode.

    Yields:
        Nothing.
    """
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def run_forward(model: Any, batch: Mapping[str, Any]) -> Any:
    """Run a model without gradient and without labels.

    Args:
        model: A module or an `OnnxModel`.
        batch: Tensors of B rows by name; what the model does not take (such as another tokenizer's token_type_ids) is
            left out.

    Returns:
        The model's output.

    Raises:
        ShrinkError: If a token or a position is one that the model does not have.
    """
    inputs = {key: value for key, value in batch.items() if key not in LABELS}
    if isinstance(model, nn.Module):
        inputs = _fitting(model, inputs)
    try:
        with torch.no_grad():
            return model(**inputs)
    except IndexError as error:
        raise ShrinkError(
            f"`dataset` must hold tokens and positions that every model has, but {type(model).__name__} lacks some "
            f"({error}). Give the `processing_class` that the model was trained with, and a smaller `max_length`."
        ) from error


def example_inputs(model: Any, *, batch_size: int = 1, sequence_length: int = 128) -> dict[str, Tensor]:
    """Random inputs of a shape, the same at every call.

    Args:
        model: A module or an `OnnxModel` with a transformers config.
        batch_size: B, rows.
        sequence_length: T, tokens a row; cut to the model's positions, and without meaning for images.

    Returns:
        "input_ids" (B, T), "attention_mask" (B, T) and for encoder-decoders "decoder_input_ids" (B, T); or
        "pixel_values" (B, channels, height, width).

    Raises:
        ShrinkError: If a number is below 1, or the config tells no shape.
    """
    for name, value in (("batch_size", batch_size), ("sequence_length", sequence_length)):
        if not value >= 1:
            raise ShrinkError(f"`{name}` must be at least 1, got {value}. Give a whole number.")
    config = model_config(model)
    values = {} if config is None else config.get_text_config().to_dict()
    generator = torch.Generator().manual_seed(0)
    if config is not None and values.get("vocab_size"):
        length = min(sequence_length, position_limit(config) or sequence_length)
        ids = torch.randint(0, values["vocab_size"], (batch_size, length), generator=generator)
        if isinstance(end := values.get("eos_token_id"), int) and 0 <= end < values["vocab_size"]:
            ids[ids == end] = 0
            ids[:, -1] = end  # some classifiers read the state of this token, and need one a row
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {**inputs, "decoder_input_ids": ids} if config.is_encoder_decoder else inputs
    if values.get("image_size"):
        size = values["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch_size, values.get("num_channels", 3), height, width)
        return {"pixel_values": torch.randn(shape, generator=generator)}
    raise ShrinkError(
        f"`inputs` must be given, because the config of {type(model).__name__} tells no shape of its inputs. "
        "Give a batch as a dict of tensors."
    )


def position_limit(config: PretrainedConfig) -> int | None:
    """Longest row that a model has positions for.

    Args:
        config: The model's config.

    Returns:
        Tokens, or None where there is no limit.
    """
    text = config.get_text_config()
    limit = text.to_dict().get("max_position_embeddings")
    if limit is None and "max_position_embeddings" in text.attribute_map:  # GPT-2 calls it n_positions
        limit = text.max_position_embeddings
    if not isinstance(limit, int) or limit < 1:  # DeBERTa without absolute positions has -1
        return None
    offset = (text.pad_token_id or 0) + 1 if any(name in text.model_type for name in OFFSET_POSITIONS) else 0
    return limit - offset


def _fitting(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(inner_model(model).forward).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return {
        key: value.to(device) if isinstance(value, Tensor) else value
        for key, value in inputs.items()
        if key in named or not named
    }
