"""The machine and the library versions that a measurement was taken with."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Versions and processor; a version is None where the library is not installed.

    Args:
        hf_shrink: Version of this project.
        python: Version of the interpreter.
        torch: Version of torch.
        transformers: Version of transformers.
        onnxruntime: Version of onnxruntime.
        cpu: The processor's name.
        cores: Processor cores that this process may use.
        threads: Threads that one forward pass was given, or None where nothing was timed.
    """

    hf_shrink: str | None
    python: str
    torch: str | None
    transformers: str | None
    onnxruntime: str | None
    cpu: str
    cores: int
    threads: int | None = None


def find_environment(threads: int | None = None) -> Environment:
    """Read this machine's environment.

    Args:
        threads: Threads that one forward pass was given.

    Returns:
        The environment.
    """
    return Environment(
        hf_shrink=_version("hf_shrink"),
        python=platform.python_version(),
        torch=_version("torch"),
        transformers=_version("transformers"),
        onnxruntime=_version("onnxruntime") or _version("onnxruntime-gpu"),
        cpu=cpu_name(),
        cores=usable_cores(),
        threads=threads,
    )


def usable_cores() -> int:
    """Cores that this process may run on.

    Returns:
        At least 1; fewer than the machine has in a container that is bound to some of them.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bf16_is_fast() -> bool:
    """Whether this machine multiplies bf16 matrices faster than fp32 ones; elsewhere bf16 is emulated and slower.

    Returns:
        True for GPUs of Ampere and later, and CPUs with AVX512-BF16 or AMX.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def cpu_name() -> str:
    """The processor's name.

    Returns:
        Such as "AMD EPYC 7B13"; the architecture's name where the system does not tell more.
    """
    cpuinfo = Path("/proc/cpuinfo")  # Linux; `platform.processor()` is empty there
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
