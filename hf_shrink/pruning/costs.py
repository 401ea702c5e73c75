"""What the parts of a model cost: each layer, and each unit of each block."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from os.path import commonprefix

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hf_shrink.architectures import architecture_of, find_layers
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.evaluation.sample_inputs import sample_inputs
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.dead_units import Block, find_blocks

HEADER_BYTES = 128  # of a safetensors file, for each tensor: its name, type, shape and place


@dataclass(frozen=True)
class Cost:
    """What a model, or a part of it, costs.

    Args:
        macs: Multiply-accumulates of one row.
        parameters: Elements.
        bytes: In the weight file.
        latency_ms: Milliseconds of one row; 0 where it was not measured.
    """

    macs: float
    parameters: float
    bytes: float
    latency_ms: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1

    def __mul__(self, count: float) -> "Cost":
        return Cost(*(each * count for each in astuple(self)))


@dataclass(frozen=True)
class CostTable:
    """What a model costs, part by part. All that is cut costs its part no more: costs are linear in widths.

    Args:
        total: The whole model.
        layers: Every layer, by stack.
        units: One unit of each block, by the block's name.
    """

    total: Cost
    layers: dict[str, list[Cost]]
    units: dict[str, Cost]


def count_costs(model: PreTrainedModel, sequence_length: int) -> CostTable:
    """Count what a model's parts cost.

    Args:
        model: Of a known family.
        sequence_length: Tokens of the row that MACs are counted on, clipped to the model's positions.

    Returns:
        The costs; MACs as `count_macs` counts them.
    """
    macs = _module_macs(model, sequence_length)
    names, moving = {id(module): name for name, module in model.named_modules()}, _moving(model)
    layers = {
        stack: [
            _cost(macs.get(names[id(layer)], 0), (p for p in layer.parameters() if id(p) not in moving))
            for layer in held
        ]
        for stack, held in find_layers(model).items()
    }
    units: dict[str, Cost] = {}
    for kind in ("ffn", "heads"):
        for _, block in find_blocks(model, kind):
            modules = {piece.name.rpartition(".")[0] for piece in block.pieces}
            spent = modules if kind == "ffn" else {_around(modules)}  # the products of queries and keys as well
            units[block.name] = _unit_cost(block, sum(macs.get(name, 0) for name in spent))
    whole = _cost(macs[""], {id(p): p for p in model.parameters()}.values())
    header = HEADER_BYTES * len(model.state_dict())
    return CostTable(Cost(whole.macs, whole.parameters, whole.bytes + header), layers, units)


def _module_macs(model: PreTrainedModel, sequence_length: int) -> dict[str, int]:
    """Of every module with all that is in it, by its name in the model."""
    counter = FlopCounterMode(display=False)
    inputs = sample_inputs(model, sequence_length=sequence_length)
    with torch.no_grad(), evaluation_mode([model]), sdpa_kernel(SDPBackend.MATH), counter:
        model(**inputs)
    counted = {"": counter.get_total_flops() // 2}
    for name, flops in counter.get_flop_counts().items():
        _, _, path = name.partition(".")  # the first part is the model's class
        if path:
            counted[path] = sum(flops.values()) // 2
    return counted


def _moving(model: PreTrainedModel) -> set[int]:
    """Parameters that go over to the next layer where the first one is dropped."""
    held = find_layers(model)
    return {
        id(parameter)
        for stack in architecture_of(inner_model(model)).stacks
        for module in stack.first_layer_modules
        if stack.name in held
        for parameter in held[stack.name][0].get_submodule(module.path).parameters()
    }


def _around(modules: Iterable[str]) -> str:
    """The innermost module that holds all of these."""
    return ".".join(commonprefix([name.split(".") for name in modules]))


def _cost(macs: float, parameters: Iterable[nn.Parameter]) -> Cost:
    found = list(parameters)
    elements = sum(parameter.numel() for parameter in found)
    return Cost(macs, elements, sum(parameter.numel() * parameter.element_size() for parameter in found))


def _unit_cost(block: Block, macs: float) -> Cost:
    elements = bytes_ = 0
    for piece in block.pieces:
        count = piece.parameter.numel() // piece.parameter.shape[piece.axis] * piece.width
        elements += count
        bytes_ += count * piece.parameter.element_size()
    return Cost(macs / len(block.live), elements, bytes_)
