"""Size on disk and number of parameters."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_shrink.errors import ShrinkError

# A folder may hold the same weights twice: the first format found is the one that `from_pretrained` reads.
WEIGHT_FILES: tuple[tuple[str, ...], ...] = (
    ("*.safetensors",),
    ("*.onnx", "*.onnx_data*", "*.onnx.data*"),
    ("openvino*.xml", "openvino*.bin"),
    ("*.gguf",),
    ("pytorch_model*.bin",),
)


def size_on_disk(folder: str | Path) -> int:
    """Bytes of a model's weight files; config, tokenizer and a trainer's states are left out.

    Args:
        folder: A saved model: safetensors (all shards), ONNX (with external data), OpenVINO, GGUF or pickle; or one
            .onnx file of several.

    Returns:
        Bytes of the first of these formats that is there.

    Raises:
        ShrinkError: If the folder holds no weights.
    """
    place = Path(folder)
    formats = ((f"{place.name}*",),) if place.is_file() else WEIGHT_FILES
    for patterns in formats:
        within = place.parent if place.is_file() else place
        files = {path for pattern in patterns for path in within.glob(pattern) if path.is_file()}
        if files:
            return sum(path.stat().st_size for path in files)  # follows the links of the Hub's cache
    raise ShrinkError(
        f"`folder` must hold weight files, got {folder} without safetensors, ONNX, OpenVINO or GGUF files. "
        "Save the model there with save_pretrained()."
    )


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, tied or otherwise shared ones once.

    Args:
        model: Any module.

    Returns:
        Elements, trained or frozen; two in a byte that bitsandbytes packed.
    """
    return sum({key: _elements(parameter) for key, parameter in _storages(model)}.values())


def _elements(parameter: torch.Tensor) -> int:
    packed = vars(parameter).get("quant_state")
    return parameter.numel() if packed is None else math.prod(packed.shape)


def _storages(model: nn.Module) -> Iterator[tuple[Any, torch.Tensor]]:
    for parameter in model.parameters():
        # On the meta device all addresses are 0, so the object itself tells shared from distinct.
        place = id(parameter) if parameter.is_meta else parameter.data_ptr()
        yield (parameter.device, place, parameter.numel()), parameter
