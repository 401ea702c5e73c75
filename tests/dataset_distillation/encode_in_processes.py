"""Encode rows in this process or under torchrun, in memory and into a folder, with a model and without one.

python -m tests.dataset_distillation.encode_in_processes FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from hf_shrink.dataset_distillation import encoder
from hf_shrink.dataset_distillation.soft_labels import attach_soft_labels
from tests.dataset_distillation.encoding import texts
from tests.processes import leave


def vectors(folder: Path) -> dict[str, np.ndarray]:
    """Encode the same rows in several ways."""
    return {
        "memory": encoder.encode(texts(101), folder / "model", batch_size=8),
        "few": encoder.encode(texts(3), folder / "model", batch_size=8),  # one process has no batch
        "folder": encoder.encode(texts(101), folder / "model", batch_size=8, output_dir=folder / "out"),
        "soft": np.array(attach_soft_labels(texts(31), folder / "teacher", batch_size=8)["soft_label"]),
        "words": encoder.encode(texts(101)),
        "saved": encoder.encode(texts(101), output_dir=folder / "words"),
    }


def main() -> None:
    """Write what each process got."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    encoder.CHUNK = 2
    encoder.usual_encoder = lambda: None
    np.savez(folder / f"{PartialState(cpu=True).process_index}.npz", **vectors(folder))
    leave()


if __name__ == "__main__":
    main()
