"""A model as the ONNX graph in fp32 that Optimum's own exporter makes of it."""

import contextlib
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.quantization.embedding_rows import replace
from hf_shrink.quantization.float_graph import check_graph
from hf_shrink.quantization.job import Job
from hf_shrink.quantization.silence import quiet

EXPORTED: Mapping[str, str] = MappingProxyType(  # task to Optimum's name for it
    {
        "single_label_classification": "text-classification",
        "multi_label_classification": "text-classification",
        "regression": "text-classification",
        "token_classification": "token-classification",
        "question_answering": "question-answering",
        "masked_lm": "fill-mask",
        "causal_lm": "text-generation-with-past",
        "feature_extraction": "feature-extraction",
        "image_classification": "image-classification",
    }
)
AGAIN = re.compile(r"_\d+$")
LOGGERS = ("root", "optimum", "transformers", "torch.onnx")


def optimum_graph_of(job: Job) -> Path:
    """The float graph of a job's model, for reading: jobs whose folders lie side by side share one.

    Args:
        job: What was asked for.

    Returns:
        The graph; config.json lies beside it.
    """
    shared = job.folder.parent / "optimum"
    if not (shared / "model.onnx").exists():  # exporting takes longer than quantizing
        export_with_optimum(job.model, shared, job.task)
    return shared / "model.onnx"


def export_with_optimum(model: PreTrainedModel, folder: Path, task: str) -> None:
    """Write `model.onnx` and `config.json`, each node named "<module>/<operator>" as `node_names` has it.

    Args:
        model: What `to_float` gave; the exporter patches what it exports, so it gets a copy by way of the disk.
        folder: A folder that is not there yet.
        task: Name in `EXPORTED`.

    Raises:
        ShrinkError: If Optimum does not export the architecture, or the graph answers otherwise than the model.
    """
    exporters = require("optimum.exporters.onnx", extra="optimum")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, quiet_libraries():
        model.save_pretrained(scratch)
        copy = type(model).from_pretrained(scratch, attn_implementation="eager")
        copy.config.use_cache = task == "causal_lm"
        try:
            exporters.onnx_export_from_model(
                copy,
                folder,
                task=EXPORTED[task],
                do_validation=False,  # it logs what differs; the check below refuses it
                no_post_process=True,  # which makes a tied head a transposed embedding: no constant to be quantized
            )
        except (
            KeyError,
            RuntimeError,
            ValueError,
        ) as error:  # whatever the exporter meets in a model of no known kind
            raise ShrinkError(
                f"`model` must be one that Optimum can export for {EXPORTED[task]}, but {type(model).__name__} is "
                f"not: {_first_line(error)} Quantize it with onnx-int8, which has an export of its own."
            ) from error
    _tidy(folder / "model.onnx", model)
    check_graph(model, OnnxModel(folder), task)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what Optimum, transformers and the tracer have to say to themselves: users can do nothing about it."""
    with quiet(*LOGGERS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tidy(path: Path, model: PreTrainedModel) -> None:
    """Name nodes after modules, and let products take their constants directly."""
    onnx = require("onnx", extra="optimum")
    graph: Any = onnx.load(path)
    constants = {tensor.name for tensor in graph.graph.initializer}
    shared = {n.output[0]: n.input[0] for n in graph.graph.node if n.op_type == "Identity" and n.input[0] in constants}
    seen: Counter[str] = Counter()
    for node in graph.graph.node:  # equal constants are stored once, and reach all nodes but one by an Identity
        node.input[:] = [shared.get(name, name) for name in node.input]
        name = f"{_module_name(model, node.name.split('/')[:-1])}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
    kept = {output.name for output in graph.graph.output} | {n for node in graph.graph.node for n in node.input}
    replace(graph.graph.node, [node for node in graph.graph.node if not kept.isdisjoint(node.output)])
    path.with_name(f"{path.name}_data").unlink(missing_ok=True)  # of a graph above 2 GB, and all of it is loaded
    onnx.save(graph, path, save_as_external_data=True, location=f"{path.name}.data")


def _module_name(model: PreTrainedModel, scopes: Sequence[str]) -> str:
    """From "/bert/encoder/layer.0/output/dense" to "bert.encoder.layer.0.output.dense".

    A module that is called again, as ALBERT's layers are, is "dense_1" to the tracer.
    """
    module: nn.Module = model
    path = []
    for name in ".".join(filter(None, scopes)).split("."):
        children = dict(module.named_children())
        own = name if name in children else AGAIN.sub("", name)
        module = children.get(own, module)
        path.append(own if own in children else name)
    return ".".join(path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
