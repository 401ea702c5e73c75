"""8 bits through torchao, in folders that transformers loads by itself."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.heads import head_names
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.packing import PACKED_TASKS, dtype_of, pack

PAPER = "https://github.com/pytorch/ao/blob/main/torchao/quantization/README.md"
FACTS: dict[str, Any] = {
    "extra": "torchao",
    "libraries": ("torchao",),
    "stages": 2,
    "calibrated": False,
    "tasks": PACKED_TASKS,
}
# Its 4 bits are not among the methods: what they are stored as on a CPU takes a byte a weight.


@QUANTIZERS.add(
    "torchao-int8",
    paper=PAPER,
    format=Format(bits=8, group_size=None, symmetric=True, embedding_bits=16, activations=None, float_bits=16),
    **FACTS,
)
def torchao_int8(job: Job, *, dtype: str = "bfloat16") -> Made:
    """Weights in int8, activations in float: the closest to the float model.

    Heads and embeddings stay in float, so that a small encoder stays larger than as a graph.

    Args:
        job: Its folder gets what `from_pretrained` loads.
        dtype: Of what stays in float: "float16", which is slow on a CPU, "bfloat16" or "float32".

    Returns:
        The options, what stayed in float, and the model in memory.
    """
    return _pack(job, require("torchao.quantization", extra="torchao").Int8WeightOnlyConfig(), dtype, {})


@QUANTIZERS.add(
    "torchao-int8-dynamic",
    paper=PAPER,
    format=Format(bits=8, group_size=None, symmetric=True, embedding_bits=16, activations="dynamic", float_bits=16),
    **FACTS,
)
def torchao_int8_dynamic(job: Job, *, dtype: str = "bfloat16", reduce_range: bool = True) -> Made:
    """Weights in int8, activations in int8 with a scale and a zero point for each token, in PyTorch.

    Heads and embeddings stay in float.

    Args:
        job: Its folder gets what `from_pretrained` loads.
        dtype: Of what stays in float: "float16", which is slow on a CPU, "bfloat16" or "float32".
        reduce_range: Whether 7 of the 8 bits are used. Without that sums overflow, silently, on a CPU without VNNI;
            where the artifact will only run on GPUs and newer CPUs, False is closer.

    Returns:
        The options, what stayed in float, and the model in memory.

    Raises:
        ShrinkError: If `reduce_range` is neither True nor False.
    """
    if not isinstance(reduce_range, bool):
        raise ShrinkError(f"`reduce_range` must be True or False, got {reduce_range!r}. True runs on every CPU.")
    quantization = require("torchao.quantization", extra="torchao")
    settings = quantization.Int8DynamicActivationInt8WeightConfig(
        act_mapping_type=quantization.MappingType.ASYMMETRIC,  # the error is half as large behind GELU and the like
        reduce_range=reduce_range,
    )
    return _pack(job, settings, dtype, {"reduce_range": reduce_range})


def _pack(job: Job, settings: Any, dtype: str, options: dict[str, Any]) -> Made:
    from transformers import TorchAoConfig

    rest = dtype_of(dtype, "dtype")
    in_float = _in_float(job)
    packed = pack(job, TorchAoConfig(settings, modules_to_not_convert=in_float), rest)
    record = {"options": {"dtype": dtype, **options}, "layers_in_float": in_float, "float_share": _float_share(packed)}
    return Made(record, model=packed)


def _in_float(job: Job) -> list[str]:
    """Full names of the linear layers that are not packed."""
    heads = head_names(job.model)
    linear = {name: module for name, module in job.model.named_modules() if isinstance(module, nn.Linear)}
    kept = [
        name
        for name, module in linear.items()
        if name in job.ignore or name in heads or type(module) is not nn.Linear  # whose class knows more
    ]
    if len(kept) == len(linear):
        raise ShrinkError(
            f"`model` must have nn.Linear layers beside its heads, but {type(job.model).__name__} has none left to "
            "pack. Choose another method, or ignore less."
        )
    return kept


def _float_share(packed: PreTrainedModel) -> float:
    total = sum(parameter.numel() for parameter in packed.parameters())
    kept = sum(p.numel() for p in packed.parameters() if type(p) in (nn.Parameter, torch.Tensor))
    return round(kept / total, 4)
