"""A model as an ONNX graph in fp32, held to the model at other shapes than the one it was traced with."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import name_nodes
from hf_shrink.quantization.silence import quiet
from hf_shrink.quantization.traced import OUTPUTS, checked_feeds, run_float, trace

OPSET = 20  # the newest that every supported onnxruntime runs; fixed, so that a newer exporter writes the same graph
CHECKED = ((1, 3), (3, 21), (5, 128))
TOLERANCE = 1e-4  # of the largest output, or absolute where that is below 1; kernels in fp32 differ by about 1e-5


def to_float(model: PreTrainedModel) -> PreTrainedModel:
    """Prepare a model to be exported and compared with, in place: in fp32, on the CPU, with dropout off.

    Args:
        model: Any float model.

    Returns:
        The same model. Its attention is written out in matrix products: fused attention brings guards against rows
        without any token into the graph, which take time and are never met.
    """
    model.cpu().float().eval()
    model.config.dtype = torch.float32
    with quiet("transformers.modeling_utils"):  # BERT of transformers 4 cannot change it, and has no such guards
        model.set_attn_implementation("eager")
    return model


def export_float_graph(model: PreTrainedModel, folder: Path, task: str) -> Path:
    """Write `model.onnx` and `config.json`, with a batch and a length that are free, each node named after its module.

    A causal language model becomes one graph that takes a past and gives it back; without a past it reads a prompt.

    Args:
        model: What `to_float` gave.
        folder: An empty folder.
        task: Name in `OUTPUTS`.

    Returns:
        The graph; large weights lie in a file beside it.

    Raises:
        ShrinkError: If the model cannot be traced, or the graph answers otherwise than the model.
    """
    traced = trace(model, task)
    graph = folder / "model.onnx"
    try:
        with quiet("torch.onnx"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision, axis names and pytrees, about which users can do nothing
            torch.onnx.export(
                traced.module,
                (),
                graph,
                kwargs=traced.sample,
                input_names=traced.inputs,
                output_names=traced.outputs,
                opset_version=OPSET,
                dynamic_shapes=traced.axes,
                external_data=True,  # one file holds 2 GB at most
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ShrinkError(
            f"`model` must be one that torch.onnx can export, but {type(model).__name__} is not: "
            f"{_first_line(error)}. Quantize another architecture."
        ) from error
    model.config.save_pretrained(folder)
    _rewrite(graph)
    check_graph(model, OnnxModel(folder), task)
    return graph


def float_graph_of(job: Job) -> Path:
    """The float graph of a job's model, for reading: jobs whose folders lie side by side share one.

    Args:
        job: What was asked for.

    Returns:
        The graph.
    """
    shared = job.folder.parent / "float"
    if not (shared / "model.onnx").exists():  # exporting takes longer than quantizing
        shared.mkdir()
        export_float_graph(job.model, shared, job.task)
    return shared / "model.onnx"


def _rewrite(path: Path) -> None:
    onnx = require("onnx", extra="onnx")
    graph = onnx.load(path)
    name_nodes(graph)
    weights = f"{path.name}.data"
    (path.parent / weights).unlink(missing_ok=True)  # the tool adds to a file that is there
    onnx.save(graph, path, save_as_external_data=True, location=weights)


def check_graph(model: PreTrainedModel, graph: OnnxModel, task: str) -> None:
    """Hold a graph to the model that it was exported from, at several shapes.

    Args:
        model: What `to_float` gave.
        graph: In fp32.
        task: Name in `OUTPUTS`.

    Raises:
        ShrinkError: If it fails, or answers otherwise.
    """
    for feed in checked_feeds(model, task, CHECKED):
        expected = run_float(model, feed, task)
        try:
            answers = graph(**feed)
        except Exception as error:  # onnxruntime's own errors share no class but this
            raise ShrinkError(_wrong(model, feed, f"it fails: {_first_line(error)}")) from error
        for name, values in zip(OUTPUTS[task], expected, strict=False):  # a cache is held to its logits
            if answers[name].shape != values.shape:
                raise ShrinkError(_wrong(model, feed, f"{name} come in shape {tuple(answers[name].shape)}"))
            largest = _of_real_tokens((answers[name] - values).abs(), feed, task).max().item()
            if not largest <= TOLERANCE * max(1.0, values.abs().max().item()):
                raise ShrinkError(_wrong(model, feed, f"{name} are off by {largest:.2g}"))


def _of_real_tokens(values: Tensor, feed: Mapping[str, Tensor], task: str) -> Tensor:
    """What padding answers is up to the exporter, and never read."""
    by_token = values.ndim == 3 or task == "question_answering"
    if "attention_mask" not in feed or not by_token:
        return values
    return values[feed["attention_mask"][:, -values.shape[1] :].bool()]


def _wrong(model: PreTrainedModel, sample: Mapping[str, Tensor], what: str) -> str:
    shape = " x ".join(str(size) for size in sample[model.main_input_name].shape)
    return (
        f"`model` must answer alike as a graph, but with inputs of {shape} the graph of "
        f"{type(model).__name__} does not: {what}. Check its weights for NaN, or quantize another architecture."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)[:200]
