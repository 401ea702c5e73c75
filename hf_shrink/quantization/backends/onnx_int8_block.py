"""Weights, embeddings and activations in 8 bits, block by block, for ONNX Runtime on the CPU."""

from typing import Any

from hf_shrink.errors import require
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.block_graph import check_group_size, quantize_blocks
from hf_shrink.quantization.float_graph import float_graph_of
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.traced import OUTPUTS


@QUANTIZERS.add(
    "onnx-int8-block",
    paper="https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits",
    extra="onnx",
    libraries=("onnx", "onnxscript", "onnxruntime"),
    stages=2,
    format=Format(bits=8, group_size=64, symmetric=False, embedding_bits=8, activations="block"),
    calibrated=False,
    tasks=tuple(OUTPUTS),
)
def onnx_int8_block(job: Job, *, group_size: int = 64) -> Made:
    """Weights in int8, activations in int8 as they come, each block of a token with a scale of its own.

    The one for language models: some of their activations are hundreds of times as large as the others, and where a
    whole batch has one scale, as in "onnx-int8", the others vanish. One token is also faster in it than in
    "onnx-int8", a long prompt or a batch slower. An answer does not depend on the rows beside it.

    Args:
        job: A model with an export; its folder gets `model.onnx`.
        group_size: Weights of a row, and activations of a token, that share a scale: 16, 32, 64, 128 or 256.

    Returns:
        The options.
    """
    check_group_size(group_size, "64 divides the widths of most models.")
    job.step("export")
    onnx = require("onnx", extra="onnx")
    graph: Any = onnx.load(float_graph_of(job))
    job.step("quantize")
    quantize_blocks(graph, group_size=group_size, symmetric=False, bits=8, ignore=job.ignore)
    onnx.save(graph, job.folder / "model.onnx")
    return Made({"options": {"group_size": group_size}})
