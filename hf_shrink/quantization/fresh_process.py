"""An artifact's answers from a process of its own: what loads there loads anywhere, and a crash there is an error."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import TASKS
from hf_shrink.quantization import reload

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}


def fresh_answers(
    folder: Path, rows: Sequence[Mapping[str, Tensor]], task: str, method: str
) -> list[dict[str, Tensor]]:
    """Load an artifact by its runtime's stock class in a fresh process without hf_shrink, and ask it.

    Args:
        folder: The artifact.
        rows: Inputs by name, shape (B, …) each.
        task: Name in `TASKS`.
        method: Name of the quantizer, for the message.

    Returns:
        For each row its outputs by name, fp32.

    Raises:
        ShrinkError: If the process fails or crashes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        inputs, answers = Path(scratch) / "rows.npz", Path(scratch) / "answers.npz"
        arrays = {f"{i}/{name}": values.numpy() for i, row in enumerate(rows) for name, values in row.items()}
        np.savez(inputs, **arrays)  # type: ignore[arg-type]
        done = subprocess.run(
            # -P: the script's own folder stays off the path
            [sys.executable, "-P", reload.__file__, str(folder), str(inputs), str(answers), TASKS[task].auto_class],
            env={**os.environ, **QUIET},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ShrinkError(
                f"`model` must load in a fresh process after {method}, but there it {ending(done)}. "
                "Choose another method, or report this with the versions of `hf-shrink env`."
            )
        loaded = np.load(answers)
        found: list[dict[str, Tensor]] = [{} for _ in rows]
        for key in loaded.files:
            row, name = key.split("/", 1)
            found[int(row)][name] = torch.from_numpy(loaded[key])
        return found


def ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a process that failed came to its end, in words.

    Args:
        done: The process, its exit code not 0.

    Returns:
        Such as "was killed by SIGFPE", or the last line of its errors.
    """
    if done.returncode < 0:
        return f"was killed by {signal.Signals(-done.returncode).name}"
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return f"failed: {lines[-1][:300] if lines else f'exit code {done.returncode}'}"
