"""Weights and embeddings in 4 bits for ONNX Runtime on the CPU."""

from typing import Any

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.block_graph import check_group_size, quantize_blocks
from hf_shrink.quantization.float_graph import float_graph_of
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.traced import OUTPUTS


@QUANTIZERS.add(
    "onnx-int4",
    paper="https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits",
    extra="onnx",
    libraries=("onnx", "onnxscript", "onnxruntime"),
    stages=2,
    format=Format(bits=4, group_size=32, symmetric=False, embedding_bits=4, activations=None),
    calibrated=False,
    tasks=tuple(OUTPUTS),
)
def onnx_int4(job: Job, *, group_size: int = 32, symmetric: bool = False) -> Made:
    """Weights and embeddings in 4 bits, activations in float, for ONNX Runtime on the CPU.

    The smallest files, and no calibration. It is not for speed: weights are unpacked as they are multiplied with.
    MiniLM in it takes as long as in float or a little longer, and about twice as long as "onnx-int8" (AVX2, 1 thread).

    Args:
        job: A model with an export; its folder gets `model.onnx`.
        group_size: Weights of a row that share a scale: 16, 32, 64, 128 or 256.
        symmetric: Whether zero is the middle level of every group, which saves the zero points.

    Returns:
        The options.
    """
    _check(group_size, symmetric)
    job.step("export")
    onnx = require("onnx", extra="onnx")
    graph: Any = onnx.load(float_graph_of(job))
    job.step("quantize")
    quantize_blocks(graph, group_size=group_size, symmetric=symmetric, ignore=job.ignore)
    onnx.save(graph, job.folder / "model.onnx")
    return Made({"options": {"group_size": group_size, "symmetric": symmetric}})


def _check(group_size: int, symmetric: bool) -> None:
    check_group_size(group_size, "32 keeps most for few bytes.")
    if not isinstance(symmetric, bool):
        raise ShrinkError(f"`symmetric` must be True or False, got {symmetric!r}. False keeps more.")
