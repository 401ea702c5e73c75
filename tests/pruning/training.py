"""Short training runs with a pruning callback, and what their checkpoints hold."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from hf_shrink.pruning import PruningCallback, PruningConfig
from hf_shrink.pruning.callback import file_name
from tests.models import tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "help", "where is the money", "top up failed please help me", "new pin", "transfer failed"]


def rows(repeats: int = 4) -> Dataset:
    """Sentences of unequal length in three classes."""
    encoded = tiny_tokenizer()(TEXTS * repeats)
    return Dataset.from_dict({**encoded, "labels": [i % 3 for i in range(len(TEXTS) * repeats)]})


def arguments(folder: Path, kind: type[TrainingArguments] = TrainingArguments, **options: Any) -> TrainingArguments:
    """Twelve AdamW steps with weight decay, a checkpoint after every fourth."""
    settings = {
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "save_steps": 4,
        "logging_steps": 1,
        "use_cpu": True,
        "report_to": [],
        **options,
    }
    return kind(output_dir=str(folder), **settings)


def train(
    folder: Path,
    *configs: PruningConfig,
    resume: Path | None = None,
    model: Any = None,
    trainer_class: type[Trainer] = Trainer,
    checkpoint: Path | None = None,
    callbacks: tuple[Any, ...] = (),
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """Train a tiny BERT, or `model`, with one callback a config."""
    trainer = trainer_class(
        model=tiny_bert_classifier() if model is None else model,
        args=arguments(folder, **options),
        train_dataset=rows(),
        eval_dataset=rows(1),
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
        callbacks=[*(PruningCallback(config, checkpoint=checkpoint) for config in configs), *callbacks],
        **(trainer_options or {}),
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def pruning_callbacks(trainer: Trainer) -> list[PruningCallback]:
    """The callbacks of a run, in order."""
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, PruningCallback)]


def masks_in(checkpoint: Path, number: int = 0) -> dict[str, torch.Tensor]:
    """The masks that a checkpoint holds, by parameter."""
    tensors = load_file(checkpoint / file_name(number))
    return {name.removeprefix("mask."): mask for name, mask in tensors.items() if name.startswith("mask.")}


def revived(weights: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> int:
    """How many weights are nonzero where the mask says that they are pruned."""
    return sum(int((weights[name] != 0)[~mask].sum()) for name, mask in masks.items())


def zero_share(weights: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> float:
    """Share of zeros in the weights (not the biases) that masks cover."""
    covered = [weights[name] for name in masks if weights[name].ndim == 2]
    return sum(int((w == 0).sum()) for w in covered) / sum(w.numel() for w in covered)
