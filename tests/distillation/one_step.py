"""One optimizer step of DistillationTrainer on eight rows, in this process or under torchrun; saves the gradients.

python -m tests.distillation.one_step FOLDER BATCH_SIZE ACCUMULATION TASK… [--no-teacher]
"""

import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from tests.distillation.tasks import TASK_CASES
from tests.processes import leave

ALPHA, TEMPERATURE = 0.7, 3.0


class KeepGradient(TrainerCallback):
    """The gradient as the optimizer gets it."""

    def __init__(self):
        self.gradient = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.gradient[name.removeprefix("module.")] = parameter.grad.clone().contiguous()


def one_step(
    output_dir,
    batch_size,
    accumulation,
    *,
    task="single_label_classification",
    teacher_model=None,
    model=None,
    rows=None,
    trainer_class=DistillationTrainer,
    **options,
):
    """Train for one step, and return its gradient and the trainer."""
    keep, case = KeepGradient(), TASK_CASES[task]
    settings = {"max_steps": 1, "logging_steps": 1, "alpha": ALPHA, "temperature": TEMPERATURE, **options}
    args = DistillationTrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        **settings,
    )
    teaching = {"teacher_model": teacher_model} if trainer_class is DistillationTrainer else {}
    trainer = trainer_class(
        model=case.student() if model is None else model,
        args=args,
        train_dataset=case.rows() if rows is None else rows,
        data_collator=case.collator(),
        callbacks=[keep],
        **teaching,
    )
    trainer.train()
    return keep.gradient, trainer


def main() -> None:
    """Take the step of each task in turn, all in this process."""
    folder, batch_size, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    for task in (name for name in sys.argv[4:] if name in TASK_CASES):
        teacher = None if "--no-teacher" in sys.argv else TASK_CASES[task].teacher()
        gradient, trainer = one_step(folder, batch_size, accumulation, task=task, teacher_model=teacher)
        if trainer.is_world_process_zero():
            save_file(gradient, folder / f"{task}.safetensors")
        AcceleratorState._reset_state()
        GradientState._reset_state()
    leave()


if __name__ == "__main__":
    main()
