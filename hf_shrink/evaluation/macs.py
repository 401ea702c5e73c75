"""Multiply-accumulates of one forward pass, counted as it runs."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hf_shrink.evaluation.forward import evaluating, example_inputs, run_forward
from hf_shrink.inputs import TASKS, OnnxModel, find_task
from hf_shrink.inputs.tasks import model_config

FLOAT_SOURCE = "of the float source"


def count_macs(
    model: Any, *, batch_size: int = 1, sequence_length: int = 128, inputs: Mapping[str, Any] | None = None
) -> int:
    """Count the multiply-accumulates of matrix products and convolutions in one forward pass.

    Args:
        model: A module, or a quantized model (`OnnxModel`, bitsandbytes, …), of which the float source is counted: the
            kernels of integer arithmetic are not countable, and would silently count as nothing.
        batch_size: Rows.
        sequence_length: Tokens a row; cut to the model's positions.
        inputs: A batch to use instead of random tokens.

    Returns:
        MACs, half the floating-point operations; norms, activations and softmax are left out, as is usual.
    """
    model = float_source(model)
    if inputs is None:
        inputs = example_inputs(model, batch_size=batch_size, sequence_length=sequence_length)
    counter = FlopCounterMode(display=False)
    # The fused attention of the CPU is unknown to the counter: its share would be missing without a word.
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), counter:
        run_forward(model, inputs)
    return counter.get_total_flops() // 2


def is_quantized(model: Any) -> bool:
    """Whether a model's own weights tell neither MACs nor parameters.

    Args:
        model: A module or an `OnnxModel`.

    Returns:
        True for graphs and for modules that transformers quantized.
    """
    config = model_config(model)
    return isinstance(model, OnnxModel) or (config is not None and "quantization_config" in vars(config))


def float_source(model: Any, task: str | None = None) -> nn.Module:
    """The float architecture that a quantized model was made of, with random weights.

    Args:
        model: A module or an `OnnxModel`.
        task: Name of its task, where its config does not tell.

    Returns:
        The module itself where it is not quantized.
    """
    config = model_config(model)
    if config is None or not is_quantized(model):
        return model
    config = deepcopy(config)
    vars(config).pop("quantization_config", None)
    auto_class = getattr(transformers, TASKS[find_task(config, task)].auto_class)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        return auto_class.from_config(config).eval()
