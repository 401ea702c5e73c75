"""A task that a tiny BERT learns in a second, and what trains it for quantized numbers."""

import copy
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments

from hf_shrink.distillation.dropout import disable_dropout
from hf_shrink.quantization import QuantizationAwareCallback
from tests.models import WORDS, tiny_bert_classifier, tiny_tokenizer

CLASSES = 3


def rows(count: int = 96, seed: int = 0) -> Dataset:
    """Sentences of random words; the class follows from the first and the last."""
    generator = torch.Generator().manual_seed(seed)
    texts, labels = [], []
    words = list(dict.fromkeys(WORDS))
    for _ in range(count):
        length = int(torch.randint(2, 7, (1,), generator=generator))
        picked = torch.randint(len(words), (length,), generator=generator).tolist()
        texts.append(" ".join(words[i] for i in picked))
        labels.append((picked[0] + picked[-1]) % CLASSES)
    return Dataset.from_dict({**tiny_tokenizer()(texts), "labels": labels})


def arguments(folder: Path, kind: type[TrainingArguments] = TrainingArguments, **options: Any) -> TrainingArguments:
    """Twelve steps of 8 rows, a checkpoint after every fourth."""
    settings = {
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "weight_decay": 0.1,
        "save_steps": 4,
        "logging_steps": 1,
        "eval_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": [],
        **options,
    }
    return kind(output_dir=str(folder), **settings)


def make_trainer(
    folder: Path,
    *callbacks: Any,
    model: PreTrainedModel | None = None,
    train_rows: Any = None,
    eval_rows: Any = None,
    trainer_class: type[Trainer] = Trainer,
    trainer_options: dict[str, Any] | None = None,
    kind: type[TrainingArguments] = TrainingArguments,
    **options: Any,
) -> Trainer:
    """What trains a tiny BERT, or `model`."""
    return trainer_class(
        model=tiny_bert_classifier(CLASSES, num_hidden_layers=2) if model is None else model,
        args=arguments(folder, kind, **options),
        train_dataset=rows() if train_rows is None else train_rows,
        eval_dataset=eval_rows,
        data_collator=DataCollatorWithPadding(tiny_tokenizer()),
        callbacks=list(callbacks),
        **(trainer_options or {}),
    )


def train(folder: Path, *callbacks: Any, resume: Path | None = None, **options: Any) -> Trainer:
    """Train, with the options of `make_trainer`."""
    trainer = make_trainer(folder, *callbacks, **options)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def callback(trainer: Trainer) -> QuantizationAwareCallback:
    """The callback of a run."""
    return next(c for c in trainer.callback_handler.callbacks if isinstance(c, QuantizationAwareCallback))


def loss_of(model: PreTrainedModel, evaluated: Dataset) -> float:
    """What a stock Trainer evaluates."""
    args = TrainingArguments(use_cpu=True, report_to=[], disable_tqdm=True, output_dir="never-written")
    trainer = Trainer(
        model=model, args=args, eval_dataset=evaluated, data_collator=DataCollatorWithPadding(tiny_tokenizer())
    )
    return trainer.evaluate()["eval_loss"]


@cache
def _learned() -> PreTrainedModel:
    model = tiny_bert_classifier(CLASSES, num_hidden_layers=2)
    disable_dropout(model)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), model=model, max_steps=300, save_strategy="no", weight_decay=0.0)
    return model.eval()


def learned() -> PreTrainedModel:
    """A copy of a model that has learnt its rows in float, without dropout."""
    return copy.deepcopy(_learned())
