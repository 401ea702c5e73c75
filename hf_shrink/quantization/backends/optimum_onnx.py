"""Int8 for the CPU through Optimum: its exporter, and its ORTQuantizer with the parts of a graph chosen for it."""

import contextlib
import dataclasses
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.graph_feed import complete_feed
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.embedding_rows import quantize_embedding_rows
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.node_names import module_of
from hf_shrink.quantization.optimum_graph import EXPORTED, optimum_graph_of, quiet_libraries
from hf_shrink.quantization.quantized_inputs import PRODUCTS, round_only_inputs

LIBRARIES = ("optimum.onnxruntime", "onnxruntime", "onnx")
DOCUMENTATION = "https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/quantization"
# The configuration is the same on every machine, so that a folder serves everywhere: with 8 bits of the weights CPUs
# without VNNI overflow as they add two products in 16 bits, silently.
CONFIG = {"per_channel": True, "reduce_range": True}
OPTIONS = {"configuration": "avx512", **CONFIG, "embeddings": "int8, one scale a row"}
PERCENTILE = 99.99  # of the values within the range; 99.9 clips what MiniLM's answers hang on: .92 agreement

Feed = dict[str, NDArray[Any]]


@QUANTIZERS.add(
    "optimum-int8",
    paper=DOCUMENTATION,
    extra="optimum",
    libraries=LIBRARIES,
    stages=2,
    format=Format(bits=8, group_size=None, symmetric=False, embedding_bits=8, activations="dynamic", tied_once=False),
    calibrated=False,
    tasks=tuple(EXPORTED),
)
def optimum_int8(job: Job) -> Made:
    """Optimum's export and dynamic quantization: weights in int8, activations in int8 as they come.

    Optimum's own choice includes products of two activations, and one scale for a whole table of embeddings. Here only
    products with constant weights are quantized, a scale a column, and embeddings, a scale a row.

    Args:
        job: A model that Optimum exports; its folder gets `model.onnx` and Optimum's record of what it did.

    Returns:
        The options.
    """
    job.step("export")
    graph = optimum_graph_of(job)
    job.step("quantize")
    with _ready(job, graph) as (quantizer, in_float):
        config = _configurations().avx512(
            is_static=False,
            use_symmetric_weights=False,  # a zero point gives back what the eighth bit was worth
            operators_to_quantize=["MatMul"],  # it makes one of every Gemm first, under another name
            nodes_to_exclude=[*in_float, *(f"{name}_MatMul" for name in in_float)],
            **CONFIG,
        )
        _save(quantizer, config, job.folder)
    return Made({"options": OPTIONS})


@QUANTIZERS.add(
    "optimum-int8-static",
    paper=DOCUMENTATION,
    extra="optimum",
    libraries=LIBRARIES,
    stages=3,
    format=Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations="static", tied_once=False),
    calibrated=True,
    tasks=tuple(EXPORTED),
)
def optimum_int8_static(job: Job, *, calibration: str = "percentile") -> Made:
    """Optimum's export and static quantization: activations in int8 over ranges that calibration rows gave.

    With Optimum's own choice a MiniLM classifier keeps .93 of its decisions. Here only the inputs of products with
    constant weights are rounded, and what these give, sums, norms and softmax stay in float: .99.

    Args:
        job: A model that Optimum exports, and rows; its folder gets `model.onnx` and Optimum's record of what it did.
        calibration: "percentile" leaves 0.01 % of the values out of the range, "minmax" none, so that one outlier
            makes all others coarse.

    Returns:
        The options.

    Raises:
        ShrinkError: If there is no such calibration, or the values do not lend themselves to it.
    """
    if calibration not in ("minmax", "percentile"):
        raise ShrinkError(f"`calibration` must be 'minmax' or 'percentile', got {calibration!r}. Write its name.")
    job.step("export")
    graph = optimum_graph_of(job)
    with _ready(job, graph) as (quantizer, in_float):
        job.step("calibrate")
        ranges = _find_ranges(quantizer, _rows(job, OnnxModel(graph)), calibration)
        job.step("quantize")
        config = _configurations().avx512(
            is_static=True, operators_to_quantize=list(PRODUCTS), nodes_to_exclude=in_float, **CONFIG
        )
        _save(quantizer, config, job.folder, ranges)
    onnx = require("onnx", extra="optimum")
    made: Any = onnx.load(job.folder / "model.onnx")
    round_only_inputs(made)
    onnx.save(made, job.folder / "model.onnx")
    return Made({"options": {**OPTIONS, "calibration": calibration}})


def _configurations() -> Any:
    return require("optimum.onnxruntime.configuration", extra="optimum").AutoQuantizationConfig


@contextlib.contextmanager
def _ready(job: Job, path: Path) -> Iterator[tuple[Any, list[str]]]:
    """An ORTQuantizer for a graph whose embeddings are packed already, and the products that stay in float."""
    onnx = require("onnx", extra="optimum")
    graph: Any = onnx.load(path)
    quantize_embedding_rows(graph, job.ignore)
    with tempfile.TemporaryDirectory(dir=job.folder.parent) as scratch, quiet_libraries():
        onnx.save(graph, Path(scratch) / "model.onnx", save_as_external_data=True)  # one file holds 2 GB at most
        shutil.copy(path.with_name("config.json"), scratch)
        runtime = require("optimum.onnxruntime", extra="optimum")
        yield runtime.ORTQuantizer.from_pretrained(Path(scratch)), _products_in_float(graph, job)


def _products_in_float(graph: Any, job: Job) -> list[str]:
    """What is named stays in float; a list of what is quantized would mean all of them where it is empty."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    products = [node for node in graph.graph.node if node.op_type in PRODUCTS]
    return [n.name for n in products if n.input[1] not in constants or module_of(n.name) in job.ignore]


def _save(quantizer: Any, config: Any, folder: Path, ranges: Any = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Without a suffix, for model.onnx is what ORTModel looks for.
        quantizer.quantize(config, scratch, file_suffix="", calibration_tensors_range=ranges)
        for name in ("model.onnx", "ort_config.json"):
            shutil.move(Path(scratch) / name, folder / name)


def _rows(job: Job, graph: OnnxModel) -> list[Feed]:
    """The rows one by one, the longest first, without their padding, which the ranges would be found over too."""
    rows = []
    for batch in job.calibration:
        for i in range(len(next(iter(batch.values())))):
            row = {name: values[i : i + 1] for name, values in batch.items()}
            if "attention_mask" in row:
                real = row["attention_mask"][0].bool()
                row = {name: values[:, real] for name, values in row.items()}
            feed = complete_feed({name: values.numpy() for name, values in row.items()}, graph.inputs)
            rows.append({name: np.asarray(values, graph.inputs[name].dtype) for name, values in feed.items()})
    return sorted(rows, key=lambda row: -sum(values.size for values in row.values()))


def _find_ranges(quantizer: Any, rows: list[Feed], calibration: str) -> Any:
    """Ranges of what the products take; a mask, which the histograms cannot hold, is not among it."""
    from datasets import Dataset

    automatic = require("optimum.onnxruntime.configuration", extra="optimum").AutoCalibrationConfig
    described = Dataset.from_dict({"row": list(range(len(rows)))})
    config = (
        automatic.minmax(described)
        if calibration == "minmax"
        else automatic.percentiles(described, percentile=PERCENTILE)
    )
    augmented = Path(quantizer.onnx_model_path).with_name("augmented.onnx")
    with contextlib.redirect_stdout(io.StringIO()):  # the histograms print
        for row in rows:  # one at a time: histograms are made of arrays of one shape
            single = [{name: values[0] for name, values in row.items()}]
            try:
                quantizer.partial_fit(single, config, augmented, list(PRODUCTS), use_external_data_format=True)
            except ValueError as error:  # "Too many bins": numbers near the end of fp32, which no histogram holds
                raise ShrinkError(
                    f"`calibration` must suit what the model computes, but {calibration!r} does not: {error} "
                    "Take 'minmax', or look for rows whose answers are not finite."
                ) from error
            config = dataclasses.replace(config, method=None)  # go on with what was begun
        return quantizer.compute_ranges()
