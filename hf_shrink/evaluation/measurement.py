"""What a model costs: bytes, parameters, arithmetic, time, memory."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_shrink.evaluation.candidates import Candidate, load_candidate, on_disk
from hf_shrink.evaluation.latency import Latency, measure_latency
from hf_shrink.evaluation.macs import count_macs, float_source, macs_note
from hf_shrink.evaluation.memory import measure_peak_memory
from hf_shrink.evaluation.size import count_parameters, size_on_disk
from hf_shrink.inputs.counts import check_counts


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
        model_or_path: Instance, folder, Hub id, or an artifact of `quantize`.
        sequence_length: Tokens a row, clipped to the model's positions.
        batch_size: Rows of the timed and counted pass.
        threads: Threads of the timed pass; None takes torch's setting.
        runs: Timed passes.
        peak_memory: Whether to start a process for the memory, which takes some seconds.
        task: Name in `TASKS`, where the checkpoint does not tell its head.

    Returns:
        The measurement.
    """
    check_counts(sequence_length=sequence_length, batch_size=batch_size, threads=threads, runs=runs)
    candidate = load_candidate(model_or_path, task)
    shape: dict[str, Any] = {"batch_size": batch_size, "sequence_length": sequence_length}
    costs = measure_costs(candidate, **shape, peak_memory=peak_memory, task=task)
    return replace(costs, latency=measure_latency(candidate.model, **shape, threads=threads, runs=runs))


def measure_costs(
    candidate: Candidate, *, batch_size: int, sequence_length: int, peak_memory: bool, task: str | None
) -> Measurement:
    """Measure all but the latency, which is taken of several models in turns.

    Args:
        candidate: The model.
        batch_size: Rows.
        sequence_length: Tokens a row.
        peak_memory: Whether to measure it.
        task: Name in `TASKS`, or None.

    Returns:
        The measurement without latency.
    """
    shape: dict[str, Any] = {"batch_size": batch_size, "sequence_length": sequence_length}
    with on_disk(candidate) as place:
        size = None if place is None else size_on_disk(place)
        memory = measure_peak_memory(place, **shape, task=task) if peak_memory and place is not None else None
    return Measurement(
        size_bytes=size,
        parameters=_parameters(candidate.model, task),
        macs=count_macs(candidate.model, **shape, task=task) or None,
        macs_note=macs_note(candidate.model),
        latency=None,
        peak_memory_bytes=memory,
    )


def _parameters(model: Any, task: str | None) -> int:
    if macs_note(model) is None:
        return count_parameters(model)
    with torch.device("meta"):  # shapes are enough
        return count_parameters(float_source(model, task))
