"""Models written to disk, unless what would be written is not the model."""

from pathlib import Path
from typing import Any

from torch import nn

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model


def save_model(model: Any, folder: Path, argument: str) -> None:
    """Save a model, or its adapter.

    Args:
        model: A transformers or PEFT model.
        folder: Where to.
        argument: By which it was given.

    Raises:
        ShrinkError: If bitsandbytes packed it, and it cannot be saved again as it is.
    """
    name = type(model).__name__
    if inner_model(model) is model and any(_loses_scales(parameter) for parameter in model.parameters()):
        raise ShrinkError(
            f"`{argument}` must be saved before it first answers, got a {name} in 4 bits that has: on this CPU "
            "bitsandbytes 0.50.2 would save its scales in another order, and the copy would answer otherwise. Give "
            "the folder that it was loaded from, or load it again."
        )
    try:
        model.save_pretrained(folder)
    except NotImplementedError as error:  # transformers 5 knows no way back from what it loaded
        raise ShrinkError(
            f"`{argument}` must be a folder where bitsandbytes packed the weights, got a {name} in memory, which this "
            "version of transformers cannot save again. Give the folder that it was loaded from; for float weights "
            "save what model.dequantize() gives."
        ) from error


def _loses_scales(parameter: nn.Parameter) -> bool:
    """Whether 4-bit weights were laid out for AVX512-BF16, and their scales in float would stay transposed."""
    state = vars(parameter).get("quant_state")
    laid_out = state is not None and vars(state).get("packing_format_for_cpu", False)
    return laid_out and not vars(state)["original_nested"]
