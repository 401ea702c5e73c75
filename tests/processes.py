"""Several processes that train together, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def run_processes(count: int, module: str, *arguments: object) -> None:
    """Run a module of the tests in `count` gloo processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-6000:]


def leave() -> None:
    """End a process that trained with others."""
    if torch.distributed.is_initialized():  # a process that leaves while the other still talks to it aborts that one
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # What was asked is saved and both are done. In one run of five a native thread that nobody joins aborts the
        # interpreter's shutdown ("terminate called without an active exception"): leave without it.
        os._exit(0)
