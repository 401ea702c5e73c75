"""Latency of one forward pass, with the conditions that it holds under."""

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_shrink.evaluation.environment import usable_cores
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.evaluation.sample_inputs import clip_length, main_input, sample_inputs
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.graph_model import GraphModel


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one forward pass, with the conditions without which the number says nothing.

    Args:
        p50_ms: Median, in milliseconds.
        p95_ms: 95th percentile, in milliseconds.
        runs: Timed passes, after warm-up.
        batch_size: Rows a pass.
        sequence_length: Tokens a row; None where the input is not text, or was given.
        threads: Threads inside one operator.
        dtype: Types of the weight matrices, such as "float32", or "float32+int8" where they are mixed.
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
    """Time one model.

    Args:
        model: A module or a `GraphModel`.
        batch_size: Rows a pass.
        sequence_length: Tokens a row, clipped to the model's positions.
        threads: Threads inside one operator; None takes torch's setting.
        runs: Timed passes.
        warmup: Passes before them.
        inputs: Inputs of another shape, by name.

    Returns:
        The latency.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "sequence_length": sequence_length, "threads": threads}
    return measure_latencies([model], **options, runs=runs, warmup=warmup, inputs=inputs)[0]


def measure_latencies(
    models: Sequence[Any],
    *,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
    runs: int = 50,
    warmup: int = 10,
    inputs: Mapping[str, Any] | None = None,
    on_round: Callable[[], Any] = lambda: None,
) -> tuple[Latency, ...]:
    """Time several models in turns, pass by pass, so that other work on the machine slows all of them alike.

    Args:
        models: Modules or `GraphModel`s; all get the same number of threads.
        batch_size: Rows a pass.
        sequence_length: Tokens a row, clipped to the smallest model's positions.
        threads: Threads inside one operator; None takes torch's setting, which is put back afterwards.
        runs: Timed passes of each.
        warmup: Passes of each before them.
        inputs: Inputs of another shape, by name, for all.
        on_round: Called after each round of timed passes, for a progress bar.

    Returns:
        One latency a model.
    """
    threads = torch.get_num_threads() if threads is None else threads
    check_counts(threads=threads, runs=runs, batch_size=batch_size, sequence_length=sequence_length)
    _warn_of_other_work()
    length = min(clip_length(model, sequence_length) for model in models)
    with _torch_threads(threads), torch.inference_mode(), evaluation_mode(models):
        calls = [_call(_threaded(m, threads), inputs, batch_size, length) for m in models]
        for call in calls:
            for _ in range(warmup):
                call()
        times = _take_turns(calls, runs, on_round)  # (models, runs)
    rows = batch_size if inputs is None else len(next(iter(inputs.values())))
    return tuple(
        Latency(
            p50_ms=float(np.percentile(milliseconds, 50)),
            p95_ms=float(np.percentile(milliseconds, 95)),
            runs=runs,
            batch_size=rows,
            sequence_length=length if inputs is None and main_input(model) == "input_ids" else None,
            threads=threads,
            dtype=weight_types(model),
            device=str(_device(model)),
        )
        for model, milliseconds in zip(models, times, strict=True)
    )


def weight_types(model: Any) -> str:
    """Types of a model's weight matrices; biases and norms are left out.

    Args:
        model: A module or a `GraphModel`.

    Returns:
        Such as "float32" or "float32+int8".
    """
    if isinstance(model, GraphModel):
        return "+".join(sorted(model.weight_types()))
    return "+".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.ndim >= 2}))


def _warn_of_other_work() -> None:
    if not hasattr(os, "getloadavg"):  # Windows
        return
    load, cores = os.getloadavg()[0], usable_cores()
    if load > cores + 1:
        warnings.warn(
            f"{load:.1f} processes compete for {cores} cores: the latencies say more of them than of the models, and "
            "several threads suffer most. Time again when the machine is idle.",
            stacklevel=3,
        )


def _take_turns(calls: Sequence[Callable[[], float]], runs: int, on_round: Callable[[], Any]) -> np.ndarray:
    times = np.zeros((len(calls), runs))
    collecting = gc.isenabled()
    gc.disable()  # a collection inside one pass would be counted as that model's
    try:
        for run in range(runs):
            for turn in range(len(calls)):
                which = (run + turn) % len(calls)  # nobody is always the one after the slowest
                calls[which]()  # the one before left its threads spinning and its weights in the cache
                times[which, run] = calls[which]()
            on_round()
    finally:
        if collecting:
            gc.enable()
    return times


def _call(model: Any, inputs: Mapping[str, Any] | None, batch_size: int, length: int) -> Callable[[], float]:
    feed = dict(inputs or sample_inputs(model, batch_size=batch_size, sequence_length=length))
    on_gpu = _device(model).type == "cuda"

    def call() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter_ns()
        model(**feed)
        if on_gpu:
            torch.cuda.synchronize()  # kernels are only queued when the call returns
        return (time.perf_counter_ns() - start) / 1e6

    return call


def _threaded(model: Any, threads: int) -> Any:
    return model.with_threads(threads) if isinstance(model, GraphModel) else model


def _device(model: Any) -> torch.device:
    return model.device if isinstance(model, GraphModel) else next(model.parameters()).device


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
