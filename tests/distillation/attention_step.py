"""One step with the terms on attention and relations, in this process or under torchrun; saves the gradients.

python -m tests.distillation.attention_step FOLDER BATCH_SIZE ACCUMULATION
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
BOTH = {"attention_weight": WEIGHT, "relation_weight": WEIGHT}


def gradient(folder, batch_size, accumulation, *, student=None, **options):
    """The gradient of the student, and the trainer."""
    model = CASE.student(**(student or {}))
    assert model.config._attn_implementation == "sdpa"
    return one_step(folder, batch_size, accumulation, teacher_model=CASE.teacher(), model=model, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    narrow = {"hidden_size": NARROW}
    found, trainer = gradient(output, int(sys.argv[2]), int(sys.argv[3]), student=narrow, **BOTH)
    if trainer.is_world_process_zero():
        save_file(found, output / "attention.safetensors")
    leave()
