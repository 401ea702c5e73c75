"""Resident memory that loading a model and one forward pass add, at its peak; measured in a fresh process."""

import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hf_shrink

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
TIMEOUT_S = 600


def measure_peak_memory(
    model: str | Path,
    *,
    task: str | None = None,
    batch_size: int = 1,
    sequence_length: int = 128,
    threads: int | None = None,
) -> int | None:
    """Load a saved model in a fresh Python process, run it once, and read how far its memory rose.

    Args:
        model: Folder, or .onnx file.
        task: Name of its task, where its config does not tell.
        batch_size: Rows of the forward pass.
        sequence_length: Tokens a row.
        threads: Threads inside one operator.

    Returns:
        Bytes above what Python and the libraries take, the same for every format; None, with a warning, where the
        process fails.
    """
    order = {"model": str(Path(model).resolve()), "task": task, "threads": threads}
    order |= {"batch_size": batch_size, "sequence_length": sequence_length}
    root = str(Path(hf_shrink.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "hf_shrink.evaluation.peak_memory", json.dumps(order)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return int(done.stdout.splitlines()[-1])
    except subprocess.SubprocessError as error:
        reason = (error.stderr or "").strip().splitlines() if isinstance(error, subprocess.CalledProcessError) else []
        warnings.warn(
            f"The peak memory of {Path(model).name} was not measured: {(reason or [str(error)])[-1]}", stacklevel=2
        )
        return None


def _run(order: dict[str, Any]) -> int:
    """Load and run once."""
    import importlib.util

    import torch

    from hf_shrink.evaluation.forward import example_inputs, run_forward
    from hf_shrink.inputs import load_model

    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime  # noqa: F401  (a library is not the model: it counts for no format)
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    options = {"threads": order["threads"]} if _is_onnx(Path(order["model"])) else {}
    before = _resident(reset=True)
    model = load_model(order["model"], task=order["task"], **options)
    shape = {key: order[key] for key in ("batch_size", "sequence_length")}
    run_forward(model, example_inputs(model, **shape))
    return max(_resident(peak=True) - before, 0)


def _is_onnx(path: Path) -> bool:
    return path.suffix == ".onnx" or not any(path.glob("*.safetensors"))


def _resident(*, peak: bool = False, reset: bool = False) -> int:
    if not STATUS.exists():  # macOS, which counts in bytes, and cannot forget the peak of the imports
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        CLEAR.write_text("5")  # else the peak would be that of the imports
    key = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(_run(json.loads(sys.argv[1])))  # noqa: T201  (the answer to the process that asked)
