"""`hf-shrink env`: what a bug report needs."""

import importlib.metadata
import os
import platform

import typer
from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
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
BACKENDS = {  # to their extra
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "nncf": "openvino",
    "torchao": "torchao",
    "optimum-onnx": "optimum",
}


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
        missing = escape(f'not installed: pip install "hf_shrink[{extra}]"')  # brackets are markup to rich
        table.add_row(name, _version(name) or missing)
    table.add_row("cpu features", ", ".join(cpu_features()) or "none of those that speed models up")
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    table.add_row("gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
    console = Console()
    console.print(table)
    if (conflict := torchvision_conflict()) is not None:
        console.print(conflict, style="bold", highlight=False, markup=False, soft_wrap=True)


def torchvision_conflict() -> str | None:
    """Whether a torchvision that was built for another torch is here: models that import it then fail as they load.

    Returns:
        What is wrong, with the line that mends it; None where nothing is.
    """
    vision, torch = _version("torchvision"), _version("torch")
    if vision is None or torch is None:
        return None
    wanted = [Requirement(line) for line in importlib.metadata.requires("torchvision") or ()]
    for requirement in wanted:
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            return (
                f"torchvision {vision} was built for torch{requirement.specifier}, and torch {torch} is here: "
                "OVModel* of optimum-intel and models of transformers that import it fail. Remove it, or install the "
                "one for this torch: pip uninstall torchvision"
            )
    return None


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
