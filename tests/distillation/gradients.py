"""Gradients of one step compared, and taken in several processes."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.processes import run_processes


def assert_same_gradient(one, other, tolerance=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-5, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def in_processes(count, folder, *arguments, module="tests.distillation.one_step"):
    """Gradients by task of a step that `count` gloo processes share."""
    run_processes(count, module, folder, *arguments)
    return {path.stem: load_file(path) for path in Path(folder).glob("*.safetensors")}
