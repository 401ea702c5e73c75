"""Latency of one forward pass."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_shrink.errors import ShrinkError, require
from hf_shrink.evaluation.forward import evaluating, example_inputs, run_forward
from hf_shrink.inputs import OnnxModel, load_model


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one forward pass, with the conditions without which the number says nothing.

    Args:
        p50_ms: Median, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        runs: Timed passes, after warm-up.
        batch_size: Rows a pass.
        sequence_length: Tokens a row; None where the input is not text.
        threads: Threads inside one operator.
        dtype: Type of the weights, such as "float32"; of an exported graph all that occur, such as "float32+int8".
        device: Such as "cpu".
    """

    p50_ms: float
    p95_ms: float
    runs: int
    batch_size: int
    sequence_length: int | None
    threads: int
    dtype: str
    device: str


def measure_latency(
    model: Any,
    *,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
    runs: int = 50,
    warmup: int = 10,
    inputs: Mapping[str, Any] | None = None,
) -> Latency:
    """Time a model's forward pass.

    Args:
        model: A module, an `OnnxModel`, a folder or a Hub id.
        batch_size: Rows a pass.
        sequence_length: Tokens a row; cut to the model's positions.
        threads: Threads inside one operator; None takes torch's number.
        runs: Timed passes.
        warmup: Passes before them.
        inputs: A batch to use instead of random tokens.

    Returns:
        The latency.
    """
    return measure_latencies(
        [load_model(model)],
        batch_size=batch_size,
        sequence_length=sequence_length,
        threads=threads,
        runs=runs,
        warmup=warmup,
        inputs=inputs,
    )[0]


def measure_latencies(
    models: Sequence[Any],
    *,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
    runs: int = 50,
    warmup: int = 10,
    inputs: Mapping[str, Any] | None = None,
) -> list[Latency]:
    """Time models in turns, pass by pass, so that a busy moment of the machine meets all alike.

    Args:
        models: Modules and `OnnxModel`s.
        batch_size: Rows a pass.
        sequence_length: Tokens a row; cut to the shortest limit of the models.
        threads: Threads inside one operator, the same for all; None takes torch's number.
        runs: Timed passes of each model.
        warmup: Passes of each before them.
        inputs: A batch to use instead of random tokens.

    Returns:
        One latency a model.

    Raises:
        ShrinkError: If a number is out of range.
    """
    for name, value, least in (("runs", runs, 1), ("warmup", warmup, 0), ("threads", threads or 1, 1)):
        if not value >= least:
            raise ShrinkError(f"`{name}` must be at least {least}, got {value}. The default is fine for most models.")
    count = torch.get_num_threads() if threads is None else threads
    batches = [inputs] * len(models) if inputs is not None else _same_length(models, batch_size, sequence_length)
    ready = [OnnxModel(m.file, threads=count) if isinstance(m, OnnxModel) else m for m in models]
    with _threads(count):
        times = _time_in_turns(ready, batches, runs, warmup)
    return [_latency(*each, count) for each in zip(ready, times, batches, strict=True)]


def weight_types(model: Any) -> str:
    """The number types that a model's weights have.

    Args:
        model: A module or an `OnnxModel`.

    Returns:
        Such as "float32"; several joined, the floating ones first: "float32+int8".
    """
    if isinstance(model, nn.Module):
        names = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    else:
        onnx = require("onnx", extra="onnx")
        graph = onnx.load(model.file, load_external_data=False).graph
        kinds = {onnx.TensorProto.DataType.Name(weight.data_type).lower() for weight in graph.initializer}
        names = {{"float": "float32", "double": "float64"}.get(kind, kind) for kind in kinds}
        names -= {"int64", "int32", "bool", "string"}  # shapes, positions and biases in integer arithmetic
    return "+".join(sorted(names, key=lambda name: ("float" not in name, name))) or "none"


def _time_in_turns(
    models: Sequence[Any], batches: Sequence[Mapping[str, Any]], runs: int, warmup: int
) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in models]
    with _all_evaluating(models):
        for turn in range(-warmup, runs):
            for model, batch, own in zip(models, batches, times, strict=True):
                # Untimed: brings the weights back into the cache, and outlasts the threads of the model before,
                # which spin for some milliseconds after their last operator.
                _timed(model, batch)
                seconds = _timed(model, batch)
                if turn >= 0:
                    own.append(1000 * seconds)
    return times


def _timed(model: Any, batch: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    run_forward(model, batch)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start


def _same_length(models: Sequence[Any], batch_size: int, sequence_length: int) -> list[Mapping[str, Any]]:
    batches = [example_inputs(m, batch_size=batch_size, sequence_length=sequence_length) for m in models]
    lengths = [batch["input_ids"].shape[1] for batch in batches if "input_ids" in batch]
    if len(set(lengths)) > 1:
        return [example_inputs(m, batch_size=batch_size, sequence_length=min(lengths)) for m in models]
    return list(batches)


def _latency(model: Any, times: Sequence[float], batch: Mapping[str, Any], threads: int) -> Latency:
    first = next(iter(batch.values()))
    return Latency(
        p50_ms=float(np.percentile(times, 50)),
        p95_ms=float(np.percentile(times, 95)),
        runs=len(times),
        batch_size=int(first.shape[0]),
        sequence_length=int(batch["input_ids"].shape[1]) if "input_ids" in batch else None,
        threads=threads,
        dtype=weight_types(model),
        device=str(model.device),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _all_evaluating(models: Sequence[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model))
        yield
