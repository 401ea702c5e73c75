"""Short training runs whose rows are scored."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainingArguments

from hf_shrink.dataset_distillation import TrainingDynamicsCallback
from hf_shrink.dataset_distillation.dynamics import STATISTICS
from tests.distillation.tasks import TASK_CASES, TaskCase

SCORES = ["el2n", "forgetting", "aum", "confidence", "margin", "entropy", "perplexity"]  # they read every statistic
SINGLE = TASK_CASES["single_label_classification"]


def arguments(folder: Path, kind: type[TrainingArguments] = TrainingArguments, **options: Any) -> TrainingArguments:
    """Three epochs over eight rows, three to a step: the last step of an epoch is smaller."""
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 3,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": [],
        **options,
    }
    return kind(output_dir=str(folder), **settings)


def train(
    folder: Path,
    callback: TrainingDynamicsCallback | None,
    *,
    case: TaskCase = SINGLE,
    model: Any = None,
    resume: Path | None = None,
    trainer_class: type[Trainer] = Trainer,
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """Train the teacher's architecture, which has dropout, or `model`."""
    chosen = trainer_options or {}
    rows = chosen.get("train_dataset") or (case.rows() if callback is None else callback.number(case.rows()))
    settings = {
        "model": case.teacher() if model is None else model,
        "args": arguments(folder, **options),
        "data_collator": case.collator(),
        "callbacks": [] if callback is None else [callback],
        **chosen,
        "train_dataset": rows,
    }
    trainer = trainer_class(**settings)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def still(folder: Path, *, case: TaskCase = SINGLE, callback: Any = None, **options: Any) -> TrainingDynamicsCallback:
    """A run at rate 0 without dropout: whenever a row is seen, its answer is that of the untrained model."""
    callback = TrainingDynamicsCallback(SCORES) if callback is None else callback
    train(folder, callback, **{"case": case, "model": case.student(), "learning_rate": 0.0, **options})
    return callback


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Whether two runs' dynamics are equal, to the last bit."""
    assert left.keys() == right.keys() == STATISTICS.keys()
    return all(np.array_equal(left[name], right[name], equal_nan=True) for name in left)
