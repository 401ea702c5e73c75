"""Dynamic int8 for the CPU through ONNX Runtime."""

import warnings
from pathlib import Path
from typing import Any

from hf_shrink.errors import require
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.embedding_rows import quantize_embedding_rows
from hf_shrink.quantization.float_graph import float_graph_of
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.node_names import nodes_of
from hf_shrink.quantization.silence import quiet
from hf_shrink.quantization.tied_heads import quantize_tied_heads
from hf_shrink.quantization.traced import OUTPUTS

OPTIONS = {
    "weights": "int8",
    "per_channel": True,
    "symmetric": False,
    "reduce_range": True,
    "embeddings": "int8, one scale a row",
    "activations": "uint8, one scale a batch, found as it runs",
}
MOSTLY_FLOAT = 0.2  # share of the weights; norms, biases and scales of MiniLM are 0.5 %


@QUANTIZERS.add(
    "onnx-int8",
    paper="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    extra="onnx",
    libraries=("onnx", "onnxscript", "onnxruntime"),
    stages=2,
    format=Format(bits=8, group_size=None, symmetric=False, embedding_bits=8, activations="dynamic"),
    calibrated=False,
    tasks=tuple(OUTPUTS),
)
def onnx_int8(job: Job) -> Made:
    """Weights in int8, activations in int8 as they come, for ONNX Runtime on the CPU.

    Matrix products and the head get one scale a column, embeddings one a row. The scale of the activations is that of
    a whole batch, so an answer depends a little on the rows beside it, and on padding.

    Args:
        job: A model with an export; its folder gets `model.onnx`.

    Returns:
        The options, and the share of the weights that stayed in float.
    """
    job.step("export")
    onnx = require("onnx", extra="onnx")
    graph = onnx.load(float_graph_of(job))
    job.step("quantize")
    quantize_tied_heads(graph, job.ignore)
    quantize_embedding_rows(graph, job.ignore)
    _quantize_products(graph, job.folder / "model.onnx", nodes_of(graph, job.ignore))
    share = _float_share(onnx, onnx.load(job.folder / "model.onnx"))
    if share > MOSTLY_FLOAT:
        warnings.warn(
            f"{share:.0%} of the weights of {type(job.model).__name__} stay in float: onnx-int8 packs matrix products "
            "and embeddings, and this architecture has most of its weights elsewhere.",
            stacklevel=2,
        )
    return Made({"options": OPTIONS, "float_share": round(share, 4)})


def _quantize_products(graph: Any, path: Path, in_float: list[str]) -> None:
    quantization = require("onnxruntime.quantization", extra="onnx")
    with quiet("root"):  # where it says that shapes could be inferred before
        quantization.quantize_dynamic(
            graph,
            path,
            nodes_to_exclude=[*in_float, *(f"{name}_MatMul" for name in in_float)],  # which the tool makes of a Gemm
            op_types_to_quantize=["MatMul"],  # the tool makes one of every Gemm first, so the head is among them
            per_channel=True,  # one scale a matrix doubles the error
            weight_type=quantization.QuantType.QInt8,  # unsigned weights miss the fast kernels: 1.6 times the latency
            # CPUs without VNNI add two 8-bit products in 16 bits. That overflows, silently; with 7 bits it cannot. A
            # zero point for each column gives back what the eighth bit was worth, at the same speed.
            reduce_range=True,
            extra_options={"WeightSymmetric": False},
        )


def _float_share(onnx: Any, graph: Any) -> float:
    sizes = [(tensor.data_type, onnx.numpy_helper.to_array(tensor).size) for tensor in graph.graph.initializer]
    floats = sum(size for kind, size in sizes if kind == onnx.TensorProto.FLOAT)
    return floats / sum(size for _, size in sizes)
