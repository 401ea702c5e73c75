"""What a model costs: bytes, parameters, multiply-accumulates, time, memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hf_shrink.evaluation.forward import example_inputs
from hf_shrink.evaluation.latency import Latency, measure_latencies
from hf_shrink.evaluation.macs import FLOAT_SOURCE, count_macs, float_source, is_quantized
from hf_shrink.evaluation.peak_memory import measure_peak_memory
from hf_shrink.evaluation.size import count_parameters
from hf_shrink.evaluation.subject import Subject, load_subject, saved, subject_size
from hf_shrink.inputs import OnnxModel


@dataclass(frozen=True)
class Measurement:
    """One model's cost; what was not measured is None. The fields are those of `Entry`.

    Args:
        size_bytes: Weight files on disk.
        parameters: Elements, shared ones once; of a quantized model those of its float source.
        macs: Multiply-accumulates of one forward pass.
        macs_note: What parameters and MACs were counted on, where it is not the model itself.
        latency: Time of one forward pass.
        peak_memory_bytes: Resident memory that loading and one forward pass add, at its peak.
    """

    size_bytes: int | None
    parameters: int
    macs: int
    macs_note: str | None
    latency: Latency
    peak_memory_bytes: int | None


def measure(
    model: Any,
    *,
    task: str | None = None,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
    runs: int = 50,
    peak_memory: bool = True,
) -> Measurement:
    """Measure what a model costs.

    Args:
        model: Instance, folder, Hub id, or an artifact of `quantize`.
        task: Name of its task, where its head does not tell.
        batch_size: Rows of a forward pass.
        sequence_length: Tokens a row; cut to the model's positions.
        threads: Threads inside one operator; None takes torch's number.
        runs: Timed passes.
        peak_memory: Whether to load it once more, in a fresh process, to see its memory.

    Returns:
        The measurement.
    """
    return measure_subjects(
        [load_subject(model, task)],
        task=task,
        batch_size=batch_size,
        sequence_length=sequence_length,
        threads=threads,
        runs=runs,
        peak_memory=peak_memory,
    )[0]


def measure_subjects(
    subjects: Sequence[Subject],
    *,
    task: str | None = None,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
    runs: int = 50,
    peak_memory: bool = True,
    on_model: Callable[[], Any] = lambda: None,
) -> list[Measurement]:
    """Measure loaded models, their latencies in turns.

    Args:
        subjects: The models.
        task: Name of their task, where their heads do not tell.
        batch_size: Rows of a forward pass.
        sequence_length: Tokens a row; cut to the models' positions.
        threads: Threads inside one operator; None takes torch's number.
        runs: Timed passes of each.
        peak_memory: Whether to load each once more, in a fresh process.
        on_model: Called after each model, such as a progress bar's step.

    Returns:
        One measurement a model.
    """
    shape = {"batch_size": batch_size, "sequence_length": sequence_length}
    models = [subject.model for subject in subjects]
    latencies = measure_latencies(
        models, batch_size=batch_size, sequence_length=sequence_length, threads=threads, runs=runs
    )
    measurements = []
    for subject, latency in zip(subjects, latencies, strict=True):
        source = float_source(subject.model, task)
        size, memory = _saved_costs(subject, task, threads, shape, peak_memory)
        measurements.append(
            Measurement(
                size_bytes=size,
                parameters=count_parameters(source),
                macs=count_macs(source, inputs=example_inputs(source, **shape)),
                macs_note=FLOAT_SOURCE if is_quantized(subject.model) else None,
                latency=latency,
                peak_memory_bytes=memory,
            )
        )
        on_model()
    return measurements


def _saved_costs(
    subject: Subject, task: str | None, threads: int | None, shape: dict[str, int], peak_memory: bool
) -> tuple[int | None, int | None]:
    with saved(subject) as folder:
        if folder is None:
            return None, None
        place = subject.model.file if isinstance(subject.model, OnnxModel) else folder
        memory = measure_peak_memory(place, task=task, threads=threads, **shape) if peak_memory else None
        return subject_size(subject, folder), memory
