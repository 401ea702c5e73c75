"""Score rows while training, under torchrun; each process writes what it found.

python -m tests.dataset_distillation.score_in_processes FOLDER
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from hf_shrink.dataset_distillation import TrainingDynamicsCallback
from tests.dataset_distillation.scored_runs import SCORES, SINGLE, still, train
from tests.processes import leave


def main() -> None:
    """Train at rate 0; then learn, once through and once resumed.

    transformers 4 cannot load an optimizer's state in two processes on the CPU: a plain gradient step has none.
    """
    folder, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
    torch.set_num_threads(1)
    found = {"still": still(folder / "still")}
    saving = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    saving |= {"optim": "sgd", "lr_scheduler_type": "constant"}
    found["whole"], found["resumed"] = (TrainingDynamicsCallback(SCORES) for _ in range(2))
    train(folder / "whole", found["whole"], model=SINGLE.student(), **saving)
    middle = folder / "whole" / "checkpoint-3"
    train(folder / "resumed", found["resumed"], model=SINGLE.student(), resume=middle, **saving)
    for name, callback in found.items():
        np.savez(folder / f"{name}-{rank}.npz", **callback.recorder.dynamics)


if __name__ == "__main__":
    main()
    leave()
