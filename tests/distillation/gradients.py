"""Gradients of one step compared, and taken in several processes."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.processes import run_processes


def assert_same_gradient(one, other, tolerance=2e-6):
    """Sums in fp32 differ by their order, and that by the processor; the more, the larger the numbers are."""
    assert one.keys() == other.keys()
    for name in one:
        atol = tolerance * max(1.0, one[name].abs().max().item())
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def in_processes(count, folder, *arguments, module="tests.distillation.one_step"):
    """Gradients by task of a step that `count` gloo processes share."""
    run_processes(count, module, folder, *arguments)
    return {path.stem: load_file(path) for path in Path(folder).glob("*.safetensors")}
