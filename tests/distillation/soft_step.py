"""One optimizer step of DistillationTrainer on rows with soft labels, under torchrun; saves the gradients.

python -m tests.distillation.soft_step FOLDER BATCH_SIZE ACCUMULATION TASK…
"""

import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file

from tests.distillation.one_step import one_step
from tests.distillation.soft_rows import soft_rows
from tests.processes import leave


def main() -> None:
    """Take the step of each task in turn, all in this process."""
    folder, batch_size, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    for task in sys.argv[4:]:
        gradient, trainer = one_step(folder, batch_size, accumulation, task=task, rows=soft_rows(task))
        if trainer.is_world_process_zero():
            save_file(gradient, folder / f"{task}.safetensors")
        AcceleratorState._reset_state()
        GradientState._reset_state()
    leave()


if __name__ == "__main__":
    main()
