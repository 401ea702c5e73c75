"""How many bytes a method would write, before it is run."""

from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_shrink.quantization.formats import Format


def predict_bytes(model: PreTrainedModel, numbers: Format, ignore: Collection[str] = ()) -> int:
    """Count the bytes of the weights, their scales and zero points; what a file holds beside them is not counted.

    Args:
        model: The float model; its shapes are enough.
        numbers: How the method stores them.
        ignore: Full names of modules that stay in float.

    Returns:
        Bytes. A weight that an embedding and a head share is counted once, or twice where the method stores it as rows
        that are gathered and as a matrix that is multiplied with.
    """
    bits, seen = 0, set()  # modules of an embedding come before those of a head
    for name, module in model.named_modules():
        kind = _kind(module) if name not in ignore else None
        for parameter_name, parameter in module.named_parameters(recurse=False):
            stored = kind if parameter_name == "weight" else None
            form = None if numbers.tied_once else stored
            if (id(parameter), form) in seen:
                continue
            seen.add((id(parameter), form))
            inputs = parameter.shape[0] if isinstance(module, Conv1D) else parameter.shape[-1]
            bits += _bits(parameter.numel(), inputs, stored, numbers)
    return -(-bits // 8)


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, nn.Embedding):
        return "embedding"
    return "product" if isinstance(module, nn.Linear | Conv1D) else None


def _bits(count: int, inputs: int, kind: str | None, numbers: Format) -> int:
    bits = {"product": numbers.bits, "embedding": numbers.embedding_bits}.get(kind or "", numbers.float_bits)
    if bits >= 16:
        return count * bits
    grouped = bits == numbers.bits  # embeddings that keep more bits than products have a scale a row
    scales = count // ((numbers.group_size if grouped else None) or inputs)
    return count * bits + scales * (numbers.scale_bits + (0 if numbers.symmetric else bits))
