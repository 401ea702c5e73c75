"""Multiply-accumulates of one forward pass, counted operator by operator."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.evaluation.sample_inputs import sample_inputs
from hf_shrink.inputs.graph_model import GraphModel
from hf_shrink.inputs.tasks import TASKS, find_task, model_config

FLOAT_SOURCE = "of the float source"


def count_macs(
    model: Any,
    *,
    batch_size: int = 1,
    sequence_length: int = 128,
    inputs: Mapping[str, Any] | None = None,
    task: str | None = None,
) -> int:
    """Count the multiply-accumulates of one forward pass: matrix products, attention and convolutions.

    Sums, norms and activations are left out, as in the literature. Kernels that the counter cannot see into are
    avoided: attention runs as plain matrix products, since the CPU's fused kernel would silently count as nothing, and
    of exported or quantized models the float source is counted, built from their config.

    Args:
        model: A module or a `GraphModel`.
        batch_size: Rows.
        sequence_length: Tokens a row, clipped to the model's positions.
        inputs: Inputs of another shape, by name.
        task: Name in `TASKS`, where the config does not tell the head.

    Returns:
        Multiply-accumulates; half of the floating-point operations.
    """
    source = float_source(model, task)
    if inputs is None:
        inputs = sample_inputs(source, batch_size=batch_size, sequence_length=sequence_length)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluation_mode([source]), sdpa_kernel(SDPBackend.MATH), counter:
        source(**inputs)
    return counter.get_total_flops() // 2


def macs_note(model: Any) -> str | None:
    """What the MACs are counted on, where it is not the model itself.

    Args:
        model: A module or a `GraphModel`.

    Returns:
        "of the float source", or None.
    """
    return FLOAT_SOURCE if _is_opaque(model) else None


def float_source(model: Any, task: str | None = None) -> nn.Module:
    """A float module with a model's architecture, for everything that depends on shapes alone.

    Args:
        model: A module or a `GraphModel`.
        task: Name in `TASKS`, where the config does not tell the head.

    Returns:
        The model itself; for an exported or quantized one a module built from its config, with random weights.

    Raises:
        ShrinkError: If there is nothing to count on.
    """
    if not _is_opaque(model):
        if isinstance(model, nn.Module):
            return model
        raise ShrinkError(f"`model` must be a module or a GraphModel, got {type(model).__name__}. Load it first.")
    config = copy.deepcopy(model_config(model))
    vars(config).pop("quantization_config", None)
    auto_class = getattr(transformers, TASKS[find_task(model, task)].auto_class)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as if nothing was built
        return auto_class.from_config(config).eval()


def _is_opaque(model: Any) -> bool:
    if isinstance(model, GraphModel):
        return True
    config = model_config(model)
    return config is not None and vars(config).get("quantization_config") is not None
