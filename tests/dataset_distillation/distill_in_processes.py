"""Distil rows in this process or under torchrun.

python -m tests.dataset_distillation.distill_in_processes FOLDER THREADS
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from hf_shrink.dataset_distillation import distill_dataset
from tests.dataset_distillation.encoding import texts
from tests.processes import leave


def main() -> None:
    """Write which rows each process got."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    rows = texts(240).add_column("label", [i % 3 for i in range(240)])
    state = PartialState(cpu=True)
    for method in ("auto", "d2"):
        settings = {"output_dir": folder / method, "duplicates": None, "curve": False}
        small = distill_dataset(rows, 30, method=method, encoder=folder / "model", **settings)
        found = {"rows": small["source_index"][:], "fingerprint": small._fingerprint}
        (folder / f"{method}-{state.process_index}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main()
