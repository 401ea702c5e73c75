"""A text encoder as an ONNX graph in fp32, held to the model at other shapes than the one it was traced with."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.node_names import name_nodes

# Task to the graph's outputs, named as Optimum's ORTModel classes read them.
OUTPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "single_label_classification": ("logits",),
        "multi_label_classification": ("logits",),
        "regression": ("logits",),
        "token_classification": ("logits",),
        "question_answering": ("start_logits", "end_logits"),
    }
)
OPSET = 20  # the newest that every supported onnxruntime runs; fixed, so that a newer exporter writes the same graph
TRACED = (2, 16)  # rows and tokens; tracing tends to take a size of 1 for a constant
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
    with _quiet("transformers.modeling_utils"):  # BERT of transformers 4 cannot change it, and has no such guards
        model.set_attn_implementation("eager")
    return model


def sample_inputs(model: PreTrainedModel, rows: int, tokens: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Random rows; the last one is padded to the others' length.

    Args:
        model: A text model.
        rows: B, rows.
        tokens: T, tokens a row; cut to the model's positions.
        seed: Seed of the tokens.

    Returns:
        Shape (B, T) each: those of "input_ids", "attention_mask" and "token_type_ids" that the model takes.
    """
    settings = model.config.to_dict()  # which fields there are differs from family to family
    tokens = min(tokens, settings.get("max_position_embeddings", tokens + 2) - 2)  # two lie before RoBERTa's first
    vocabulary = cast("nn.Embedding", model.get_input_embeddings()).num_embeddings
    ids = torch.randint(vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    if (padding := model.config.pad_token_id) is not None:  # some families number positions by what is not padding
        ids[ids == padding] = (padding + 1) % vocabulary
    mask = torch.ones_like(ids)
    if rows > 1:  # a row by itself has no padding
        mask[-1, tokens // 2 + 1 :] = 0
    sample = {"input_ids": ids, "attention_mask": mask}
    if settings.get("type_vocab_size", 0) > 1:  # RoBERTa takes them, and has one type
        sample["token_type_ids"] = torch.zeros_like(ids)
    taken = inspect.signature(model.forward).parameters
    return {name: values for name, values in sample.items() if name in taken}


def run_float(model: PreTrainedModel, sample: Mapping[str, Tensor], task: str) -> tuple[Tensor, ...]:
    """The model's own answer.

    Args:
        model: What `to_float` gave.
        sample: What `sample_inputs` made, shape (B, T).
        task: Name in `OUTPUTS`.

    Returns:
        One tensor for each of the task's outputs: (B, C), (B, T, C) or (B, T).
    """
    with torch.no_grad():
        return _Outputs(model, OUTPUTS[task])(**sample)


def export_float_graph(model: PreTrainedModel, folder: Path, task: str) -> Path:
    """Write `model.onnx` and `config.json`, with a batch and a length that are free, each node named after its module.

    Args:
        model: What `to_float` gave.
        folder: An empty folder.
        task: Name in `OUTPUTS`.

    Returns:
        The graph; large weights lie in a file beside it.

    Raises:
        ShrinkError: If the model cannot be traced, or the graph answers otherwise than the model.
    """
    sample = sample_inputs(model, *TRACED)
    axes = {0: "batch_size", 1: "sequence_length"}
    graph = folder / "model.onnx"
    try:
        with _quiet("torch.onnx"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision, axis names and pytrees, about which users can do nothing
            torch.onnx.export(
                _Outputs(model, OUTPUTS[task]).eval(),
                (),
                graph,
                kwargs=sample,
                input_names=list(sample),
                output_names=OUTPUTS[task],
                opset_version=OPSET,
                dynamic_shapes=dict.fromkeys(sample, axes),
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
    _check(model, OnnxModel(folder), task)
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


class _Outputs(nn.Module):
    """Named tensors in, named tensors out: a graph has neither defaults nor dataclasses."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        optional = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: values for name, values in optional.items() if values is not None}
        outputs = self.model(input_ids=input_ids, **given, return_dict=True)
        return tuple(outputs[name] for name in self.names)


def _check(model: PreTrainedModel, graph: OnnxModel, task: str) -> None:
    for rows, tokens in CHECKED:
        sample = sample_inputs(model, rows, tokens, seed=1)
        expected = run_float(model, sample, task)
        try:
            answers = graph(**sample)
        except Exception as error:  # onnxruntime's own errors share no class but this
            raise ShrinkError(_wrong(model, sample, f"it fails: {_first_line(error)}")) from error
        for name, values in zip(OUTPUTS[task], expected, strict=True):
            if answers[name].shape != values.shape:
                raise ShrinkError(_wrong(model, sample, f"{name} come in shape {tuple(answers[name].shape)}"))
            largest = (answers[name] - values).abs().max().item()
            if not largest <= TOLERANCE * max(1.0, values.abs().max().item()):
                raise ShrinkError(_wrong(model, sample, f"{name} are off by {largest:.2g}"))


def _wrong(model: PreTrainedModel, sample: Mapping[str, Tensor], what: str) -> str:
    rows, tokens = sample["input_ids"].shape
    return (
        f"`model` must answer alike as a graph, but with {rows} rows of {tokens} tokens the graph of "
        f"{type(model).__name__} does not: {what}. Check its weights for NaN, or quantize another architecture."
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)[:200]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
