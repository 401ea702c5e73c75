"""One step with the hidden term, in this process or under torchrun; saves the gradients, those of projections too.

python -m tests.distillation.hidden_step FOLDER BATCH_SIZE ACCUMULATION
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.distillation.one_step import one_step
from tests.distillation.tasks import TASK_CASES
from tests.processes import leave

WEIGHT, NARROW = 3.0, 16
CASE = TASK_CASES["single_label_classification"]


def projections(trainer):
    """Parameters of the learned projections."""
    known = {id(parameter) for parameter in trainer.model.parameters()}
    groups = trainer.optimizer.param_groups
    return [p for group in groups for p in group["params"] if id(p) not in known]


def gradient(folder, batch_size, accumulation, *, width=32, lr=1e-3, max_steps=1, **options):
    """The gradient of the student, and of the projections, where the widths differ."""
    own, trainer = one_step(
        folder,
        batch_size,
        accumulation,
        teacher_model=CASE.teacher(),
        model=CASE.student(hidden_size=width),
        layer_map="last",
        learning_rate=lr,
        max_steps=max_steps,
        **options,
    )
    beside = {f"projection.{i}": p.grad.clone() for i, p in enumerate(projections(trainer))}
    return {**own, **beside}, trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    found, trainer = gradient(output, int(sys.argv[2]), int(sys.argv[3]), hidden_weight=WEIGHT, width=NARROW)
    if trainer.is_world_process_zero():
        save_file(found, output / "hidden.safetensors")
    leave()
