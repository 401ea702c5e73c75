"""Models whose weights can be cut."""

from typing import Any

from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError


def check_float_model(model: Any, argument: str, purpose: str, if_quantized: str) -> PreTrainedModel:
    """Check that all weights of a model are there, as floating point numbers.

    Args:
        model: What the user gave, loaded.
        argument: By which it was given.
        purpose: What it has to have float weights for, such as "to drop layers".
        if_quantized: What to do with a quantized one, as a sentence.

    Returns:
        The model.

    Raises:
        ShrinkError: If it is no transformers model, is quantized, or has weights on the meta device.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`{argument}` must be a transformers model, got {name}. Give the plain one: for PEFT merge_and_unload(), "
            "for ONNX the model it was exported from."
        )
    weights = list(model.parameters())
    if "quantization_config" in vars(model.config) or not all(w.is_floating_point() for w in weights):
        raise ShrinkError(f"`{argument}` must have float weights {purpose}, got a quantized {name}. {if_quantized}")
    if any(weight.is_meta for weight in weights):
        raise ShrinkError(
            f"`{argument}` must be in memory, got a {name} with weights on the meta device. "
            "Load it without offloading."
        )
    return model
