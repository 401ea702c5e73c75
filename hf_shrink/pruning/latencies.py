"""A look-up table of latencies: what layers, heads and neurons take, measured on models with fewer of them."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from torch import nn

from hf_shrink.evaluation.latency import measure_latencies
from hf_shrink.pruning.costs import CostTable
from hf_shrink.pruning.shapes import Parts, Shape, heads_and_neurons, narrowed

RUNS = 100  # timed passes of each model
NARROWER = Fraction(1, 4)  # share of the neurons


def with_latencies(parts: Parts, model: nn.Module, make: Callable[[Shape], nn.Module], sequence_length: int) -> Parts:
    """Measure what parts take, one row at a time, with torch's own number of threads.

    The model is timed in turns with one of half as many layers, one with a quarter of the neurons and one with the
    fewest heads. What a part takes is taken to be the same everywhere: latencies are predicted, and not measured.

    Args:
        parts: Of the model, without latencies.
        model: Itself.
        make: From a shape to a model of it.
        sequence_length: Tokens of the row.

    Returns:
        The parts with latencies among their costs.
    """
    heads, neurons = heads_and_neurons(parts.widths)
    fewer = Shape(tuple(parts.layers[: (len(parts.layers) + 1) // 2]), {})
    smaller = [fewer, narrowed(parts, heads, Fraction(0)), narrowed(parts, neurons, NARROWER)]
    models = [model, *(make(shape) for shape in smaller)]
    latencies = measure_latencies(models, sequence_length=sequence_length, runs=RUNS)
    whole, without_layers, without_heads, without_neurons = (latency.p50_ms for latency in latencies)
    of_layer = _each(whole - without_layers, len(fewer.dropped))
    units = dict(parts.table.units)
    for shape, latency in zip(smaller[1:], (without_heads, without_neurons), strict=True):
        of_unit = _each(whole - latency, sum(int((~kept).sum()) for kept in shape.kept.values()))
        units |= {name: replace(units[name], latency_ms=of_unit) for name in shape.kept}
    layers = {
        stack: [replace(cost, latency_ms=of_layer) for cost in costs] for stack, costs in parts.table.layers.items()
    }
    return replace(parts, table=CostTable(replace(parts.table.total, latency_ms=whole), layers, units))


def _each(saved: float, count: int) -> float:
    return max(0.0, saved) / max(1, count)  # noise may make a smaller model seem slower
