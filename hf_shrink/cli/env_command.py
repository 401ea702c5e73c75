"""`hf-shrink env`: what a bug report needs."""

import importlib.metadata
import os
import platform

import typer
from rich.console import Console
from rich.table import Table

LIBRARIES = (
    "hf_shrink",
    "torch",
    "transformers",
    "huggingface_hub",
    "datasets",
    "accelerate",
    "peft",
    "evaluate",
    "optimum",
    "bitsandbytes",
    "safetensors",
)
FEATURES = (
    "avx2",
    "avx512_f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "i8mm",
    "bf16",
)
BACKENDS = {"onnxruntime": "onnx", "onnx": "onnx", "onnxscript": "onnx", "optimum-onnx": "optimum"}  # to their extra


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("env")(show_environment)


def show_environment() -> None:
    """Print versions, backends, CPU features and threads."""
    import torch

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("python", platform.python_version())
    table.add_row("system", f"{platform.system()} {platform.machine()}")
    for name in LIBRARIES:
        table.add_row(name, _version(name) or "not installed")
    for name, extra in BACKENDS.items():
        table.add_row(name, _version(name) or f'not installed: pip install "hf_shrink[{extra}]"')
    table.add_row("cpu features", ", ".join(cpu_features()) or "none of those that speed models up")
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    table.add_row("gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
    Console().print(table)


def cpu_features() -> list[str]:
    """The instruction sets that matter here and that this CPU has."""
    import torch

    there = torch.cpu.get_capabilities()
    return [name for name in FEATURES if there.get(name)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
