"""Int8 with fixed ranges for the CPU through ONNX Runtime."""

from collections.abc import Collection
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.activation_histograms import collect_histograms, largest_inputs
from hf_shrink.quantization.activation_ranges import RANGES
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.embedding_rows import quantize_embedding_rows
from hf_shrink.quantization.float_graph import float_graph_of
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.node_names import module_of
from hf_shrink.quantization.smoothing import smoothing_factors
from hf_shrink.quantization.static_graph import Grid, constant_products, quantize_products
from hf_shrink.quantization.tied_heads import quantize_tied_heads
from hf_shrink.quantization.traced import OUTPUTS

Group = tuple[set[str], set[str]]  # names of activations, and of the modules that are given them


@QUANTIZERS.add(
    "onnx-int8-static",
    paper="arXiv:2211.10438",
    extra="onnx",
    libraries=("onnx", "onnxscript", "onnxruntime"),
    stages=3,
    format=Format(bits=8, group_size=None, symmetric=False, embedding_bits=8, activations="static"),
    calibrated=True,
    tasks=tuple(OUTPUTS),
)
def onnx_int8_static(job: Job, *, ranges: str = "mse", smoothing: float = 0.8) -> Made:
    """Weights in int8, activations in int8 over ranges fixed on calibration rows, smoothed (Xiao et al., 2022).

    Products with a constant matrix are quantized, and embeddings; softmax, norms, sums and products of two
    activations stay in float. Other than in "onnx-int8", an answer does not depend on the rows beside it, unless there
    is a head that shares its table with the embeddings: what that one is given gets its range as it runs.

    Args:
        job: A model with an export, and rows; its folder gets `model.onnx`.
        ranges: "mse" has the least squared error of what products give, "percentile" clips 0.01 % of their inputs,
            and "minmax" nothing, so that one outlier makes all others coarse.
        smoothing: How much of the outliers is handed over to the weights, in [0, 1]; the paper has 0.5 to 0.9.

    Returns:
        The options.
    """
    _check(ranges, smoothing)
    job.step("export")
    onnx = require("onnx", extra="onnx")
    graph = onnx.load(float_graph_of(job))
    quantize_tied_heads(graph, job.ignore)
    job.step("calibrate")
    grids, modules = _find_grids(job, graph, ranges, smoothing)
    job.step("quantize")
    quantize_products(graph, grids, modules)
    quantize_embedding_rows(graph, job.ignore)
    onnx.save(graph, job.folder / "model.onnx")
    return Made({"options": {"ranges": ranges, "smoothing": smoothing}})


def _check(ranges: str, smoothing: float) -> None:
    if ranges not in RANGES:
        raise ShrinkError(f"`ranges` must be one of {list(RANGES)}, got {ranges!r}. Write its name.")
    if not 0 <= smoothing <= 1:
        raise ShrinkError(f"`smoothing` must be in [0, 1], got {smoothing}. 0 hands nothing over to the weights.")


def _find_grids(job: Job, graph: Any, ranges: str, smoothing: float) -> tuple[dict[str, Grid], set[str]]:
    """The grid of each activation that a product takes, by its name in the graph, and the modules of the products."""
    linear = {
        name: module
        for name, module in job.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name not in job.ignore
    }
    largest = largest_inputs(job.model, linear, job.calibration)
    groups = _groups(graph, largest)
    factors: dict[str, Tensor] = {}
    shares: dict[str, Tensor] = {}
    for _, names in groups:
        weights = {name: _by_input(linear[name]) for name in names}
        inputs = torch.stack([largest[name] for name in names]).amax(0)
        heaviest = torch.stack([weight.abs().amax(1) for weight in weights.values()]).amax(0)
        factors |= dict.fromkeys(names, smoothing_factors(inputs, heaviest, smoothing))
        # How much of an error in each input comes out, squared.
        shares |= {name: (weight / factors[name][:, None]).square().sum(1) for name, weight in weights.items()}
    used = {name: linear[name] for name in factors}
    counted = collect_histograms(job.model, used, job.calibration, factors, shares if ranges == "mse" else None)
    grids: dict[str, Grid] = {}
    for activations, names in groups:
        low, high = RANGES[ranges](reduce(add, [counted[name] for name in sorted(names)]))
        grids |= dict.fromkeys(activations, Grid(low, high, factors[min(names)].numpy()))
    return grids, set(used)


def _groups(graph: Any, modules: Collection[str]) -> list[Group]:
    """Activations that share a grid, since a module is given all of them, or since their modules are given others."""
    groups: list[Group] = []
    for product in constant_products(graph):
        activations, names = {product.input}, {module_of(product.node.name)}
        if not names <= set(modules):
            continue
        for group in [group for group in groups if activations & group[0] or names & group[1]]:
            groups.remove(group)
            activations, names = activations | group[0], names | group[1]
        groups.append((activations, names))
    return groups


def _by_input(module: nn.Module) -> Tensor:
    """Weights of a module, shape (inputs, outputs)."""
    weight = module.get_parameter("weight").detach()
    return weight if isinstance(module, Conv1D) else weight.T
