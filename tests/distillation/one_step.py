"""One optimizer step of DistillationTrainer on eight rows, in this process or under torchrun; saves the gradient.

python -m tests.distillation.one_step OUTPUT BATCH_SIZE ACCUMULATION [--no-teacher]
"""

import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import DataCollatorWithPadding, TrainerCallback

from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments
from tests.models import tiny_bert_classifier, tiny_tokenizer

ALPHA, TEMPERATURE = 0.7, 3.0
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TEXTS = [
    "my card is lost",
    "help",
    "where is the money please",
    "top up failed with pending cash transfer please help me",
    "new pin",
    "transfer failed",
    "my new card is pending where is my money",
    "cash",
]
LABELS = [0, 1, 2, 0, 1, -100, 2, 1]  # one row without a label: it learns from the teacher alone


def rows() -> Dataset:
    """Eight rows of unequal length."""
    return Dataset.from_dict({**tiny_tokenizer()(TEXTS), "labels": LABELS})


def student():
    """Two layers, no dropout, so that one step has one right gradient."""
    return tiny_bert_classifier(num_hidden_layers=2, seed=8, **NO_DROPOUT)


def teacher():
    """Four layers, dropout on: only a teacher in evaluation mode gives the same answer twice."""
    return tiny_bert_classifier(num_hidden_layers=4, seed=12)


class KeepGradient(TrainerCallback):
    """The gradient as the optimizer gets it."""

    def __init__(self):
        self.gradient = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            self.gradient[name.removeprefix("module.")] = parameter.grad.clone().contiguous()


def one_step(output_dir, batch_size, accumulation, *, teacher_model, trainer_class=DistillationTrainer, **options):
    """Train for one step, and return its gradient and the trainer."""
    keep = KeepGradient()
    args = DistillationTrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0,
        alpha=ALPHA,
        temperature=TEMPERATURE,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        **options,
    )
    teaching = {"teacher_model": teacher_model} if trainer_class is DistillationTrainer else {}
    trainer = trainer_class(
        model=student(),
        args=args,
        train_dataset=rows(),
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
        callbacks=[keep],
        **teaching,
    )
    trainer.train()
    return keep.gradient, trainer


if __name__ == "__main__":
    output, batch_size, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    gradient, trainer = one_step(
        output.parent, batch_size, accumulation, teacher_model=None if "--no-teacher" in sys.argv else teacher()
    )
    if trainer.is_world_process_zero():
        save_file(gradient, output)
    if torch.distributed.is_initialized():  # a process that leaves while the other still talks to it aborts that one
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # The gradient is saved and both are done. In one run of five a native thread that nobody joins aborts the
        # interpreter's shutdown ("terminate called without an active exception"): leave without it.
        os._exit(0)
