"""Prune while training, under torchrun; each process writes the digest of its masks.

python -m tests.pruning.run_in_processes FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState

from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.trained_scores import TrainedScores
from hf_shrink.pruning.worth import GradientWorth
from tests.processes import leave
from tests.pruning.training import pruning_callbacks, train

RAMP = {"start_step": 2, "end_step": 5, "pruning_frequency": 2}
CASES = {
    "magnitude": PruningConfig("magnitude", final_sparsity=0.7, **RAMP),
    "movement": PruningConfig("movement", final_sparsity=0.7, score_learning_rate=0.5, **RAMP),
    "2:4": PruningConfig("magnitude", "2:4", **RAMP),
    "taylor": PruningConfig("taylor", final_sparsity=0.7, **RAMP),
    "fisher": PruningConfig("fisher", "neurons", final_sparsity=0.5, **RAMP),
    "random": PruningConfig("random", "block:8x8", final_sparsity=0.5, **RAMP),
}


def agreed(rank: int) -> dict[str, list[float]]:
    """Scores of processes that saw different gradients, which DDP would have hidden."""
    found = {}
    for method in ("taylor", "movement"):
        weight = torch.nn.Parameter(torch.ones(2))
        if method == "taylor":
            worth = GradientWorth(method, {"weight": weight})
        else:
            worth = TrainedScores(method, {"weight": weight}, ("weight",), 1.0)
            worth.scores["weight"].data.fill_(rank + 1.0)
        weight.grad = torch.full((2,), rank + 1.0)
        worth.before_step({})
        worth.after_step({}, 1.0 if method == "taylor" else None)
        worth.agree()
        found[method] = worth.score("weight").tolist()
    return found


def main() -> None:
    """Train each case in turn, all in this process."""
    folder, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
    torch.set_num_threads(1)
    found = {}
    for case, config in CASES.items():
        trainer = train(folder / case, config, max_steps=6, save_steps=6, per_device_train_batch_size=2)
        weights = {name: tensor.double().sum().item() for name, tensor in trainer.model.state_dict().items()}
        found[case] = {"digest": pruning_callbacks(trainer)[0].pruner.digest(), "weights": weights}
        AcceleratorState._reset_state()
        GradientState._reset_state()
    found["agreed"] = agreed(int(rank))
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    leave()
