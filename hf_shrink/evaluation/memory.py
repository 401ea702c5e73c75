"""Peak memory of loading a model and running it once, taken in a process of its own."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hf_shrink

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def measure_peak_memory(
    source: str | Path, *, task: str | None = None, batch_size: int = 1, sequence_length: int = 128
) -> int | None:
    """Resident memory that loading a model and one forward pass add at their peak, in a fresh Python process.

    What the libraries themselves take is there before and does not count, and every weight is read once, so that a
    graph and a module compare fairly.

    Args:
        source: Folder or .onnx file.
        task: Name in `TASKS`, where the config does not tell the head.
        batch_size: Rows.
        sequence_length: Tokens a row, clipped to the model's positions.

    Returns:
        Bytes; None on systems without Linux's /proc, where there is no peak to read, and, with a warning, where the
        process fails.
    """
    if not (STATUS.exists() and os.access(CLEAR, os.W_OK)):
        return None
    request: dict[str, Any] = {"source": str(Path(source).resolve()), "task": task}
    request |= {"batch_size": batch_size, "sequence_length": sequence_length}
    root = str(Path(hf_shrink.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hf_shrink.evaluation.memory", json.dumps(request)],
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or "no message").splitlines()[-1]
        warnings.warn(f"The peak memory of {Path(source).name} was not measured: {reason}", stacklevel=2)
        return None
    return int(done.stdout.splitlines()[-1])


def probe(source: str, task: str | None, batch_size: int, sequence_length: int) -> int:
    """Load and run a model in this process.

    Args:
        source: Folder or .onnx file.
        task: Name in `TASKS`, or None.
        batch_size: Rows.
        sequence_length: Tokens a row.

    Returns:
        Bytes that were added at the peak.
    """
    import torch

    from hf_shrink.evaluation.sample_inputs import sample_inputs
    from hf_shrink.inputs.models import load_model

    _import_libraries(source)
    CLEAR.write_text("5")  # sets the peak back to what is resident now
    before = _peak()
    model = load_model(source, task=task)
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            parameter.sum()  # a mapped file's pages are resident only once they are read, and how many is up to chance
    with torch.inference_mode():
        model(**sample_inputs(model, batch_size=batch_size, sequence_length=sequence_length))
    return _peak() - before


def _import_libraries(source: str) -> None:
    import accelerate  # noqa: F401  # from_pretrained would import it, and it would count as the model's
    import torch
    import transformers

    place = Path(source)
    if any(place.glob("openvino*.xml")):
        import openvino  # noqa: F401
    elif place.suffix == ".onnx" or not any(place.glob("*.safetensors")):
        import onnxruntime  # noqa: F401
    config = transformers.AutoConfig.from_pretrained(place.parent if place.is_file() else place)
    if vars(config).get("quantization_config") is not None:
        import bitsandbytes  # noqa: F401
    for name in config.architectures or ():
        getattr(transformers, name)  # loads the module that defines it
    a = torch.ones(64, 64)
    a @ a  # wakes the thread pool and the math library


def _peak() -> int:
    fields: dict[str, Any] = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    sys.stdout.write(f"{probe(**json.loads(sys.argv[1]))}\n")
