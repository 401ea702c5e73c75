"""What a model costs: bytes, parameters, arithmetic, time, memory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.latency import Latency, measure_latency
from hf_shrink.evaluation.macs import count_macs, float_source, macs_note
from hf_shrink.evaluation.memory import measure_peak_memory
from hf_shrink.evaluation.size import count_parameters, size_on_disk
from hf_shrink.inputs.models import base_folder, load_model
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.inputs.tasks import inner_model


@dataclass(frozen=True)
class Measurement:
    """What a model costs; what was not measured is None.

    Args:
        size_bytes: Weight files on disk.
        parameters: Elements, shared ones once; of an exported or quantized model those of the float source.
        macs: Multiply-accumulates of one forward pass.
        macs_note: What parameters and MACs were counted on, where it is not the model itself.
        latency: Time of one forward pass, with its conditions.
        peak_memory_bytes: Resident memory that loading and one forward pass add at their peak, in a fresh process.
    """

    size_bytes: int | None
    parameters: int
    macs: int | None
    macs_note: str | None
    latency: Latency | None
    peak_memory_bytes: int | None


def measure(
    model_or_path: Any,
    *,
    sequence_length: int = 128,
    batch_size: int = 1,
    threads: int | None = None,
    runs: int = 50,
    peak_memory: bool = True,
    task: str | None = None,
) -> Measurement:
    """Measure what a model costs.

    Args:
        model_or_path: A model, a folder or a Hub id.
        sequence_length: Tokens a row, clipped to the model's positions.
        batch_size: Rows of the timed and counted pass.
        threads: Threads of the timed pass; None takes torch's setting.
        runs: Timed passes.
        peak_memory: Whether to start a process for the memory, which takes some seconds.
        task: Name in `TASKS`, where the checkpoint does not tell its head.

    Returns:
        The measurement.
    """
    model = load_model(model_or_path, task=task)
    shape = {"batch_size": batch_size, "sequence_length": sequence_length}
    costs = measure_costs(model_or_path, model, **shape, peak_memory=peak_memory, task=task)
    return replace(costs, latency=measure_latency(model, **shape, threads=threads, runs=runs))


def measure_costs(
    source: Any, model: Any, *, batch_size: int, sequence_length: int, peak_memory: bool, task: str | None
) -> Measurement:
    """Measure all but the latency, which is taken of several models in turns.

    Args:
        source: What the user named: instance, folder or Hub id.
        model: The same, loaded.
        batch_size: Rows.
        sequence_length: Tokens a row.
        peak_memory: Whether to measure it.
        task: Name in `TASKS`, or None.

    Returns:
        The measurement without latency.
    """
    shape = {"batch_size": batch_size, "sequence_length": sequence_length}
    with _on_disk(source, model) as place:
        size = None if place is None else size_on_disk(place)
        memory = None
        if peak_memory and place is not None:
            memory = measure_peak_memory(place, **shape, task=task)
    return Measurement(
        size_bytes=size,
        parameters=_parameters(model, task),
        macs=count_macs(model, **shape, task=task) or None,
        macs_note=macs_note(model),
        latency=None,
        peak_memory_bytes=memory,
    )


def _parameters(model: Any, task: str | None) -> int:
    if macs_note(model) is None:
        return count_parameters(model)
    with torch.device("meta"):  # shapes are enough
        return count_parameters(float_source(model, task))


@contextmanager
def _on_disk(source: Any, model: Any) -> Iterator[Path | None]:
    """Where a model's files lie; an instance is written to a folder that is gone afterwards."""
    if isinstance(model, OnnxModel):
        yield model.file
    elif isinstance(source, (str, Path)) and (folder := base_folder(source)) is not None:
        yield folder
    elif isinstance(model, PreTrainedModel):
        with tempfile.TemporaryDirectory(prefix="hf_shrink-") as folder_name:
            model.save_pretrained(folder_name)
            yield Path(folder_name)
    elif isinstance(model, nn.Module) and inner_model(model) is not model:
        raise ShrinkError(
            f"`model` must be saved whole to be measured, got {type(model).__name__}, which saves its adapter alone. "
            "Call merge_and_unload() and give the result."
        )
    else:
        yield None
