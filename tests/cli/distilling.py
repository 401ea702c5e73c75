"""What the tests of `distill` and `cache-teacher` share: a tiny teacher and rows on disk, and a look into the run."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset
from transformers import Trainer
from typer.testing import CliRunner

from hf_shrink.cli import distill_stages, main, prune_stages
from hf_shrink.distillation import DistillationTrainer
from hf_shrink.evaluation import compare
from tests.distillation.tasks import TASK_CASES, TEXTS
from tests.models import tiny_tokenizer

SINGLE = "single_label_classification"
LABELS = [0, 1, 2, 0, 1, 2, 2, 1]


def save_teacher(folder: Path, task: str = SINGLE, **config: Any) -> Path:
    """Four layers, with the tokenizer beside them."""
    TASK_CASES[task].teacher(**config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_rows(folder: Path, **columns: Any) -> Path:
    """Eight rows as both splits; without columns, texts with a class each."""
    folder.mkdir()
    rows = Dataset.from_dict(columns or {"text": TEXTS, "label": LABELS})
    if not columns:
        rows = rows.cast_column("label", ClassLabel(3))
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


@dataclass
class Runs:
    """What in-process runs of the command line did."""

    trainers: list[Any] = field(default_factory=list)

    def __call__(self, *arguments: Any) -> Any:
        """Run; an error is raised, as it is before `main.run` makes a line of it."""
        return CliRunner().invoke(main.app, [str(a) for a in arguments], catch_exceptions=False)

    @property
    def last(self) -> Any:
        """The trainer of the last run."""
        return self.trainers[-1]

    @property
    def log(self) -> dict[str, float]:
        """The loss terms of its last epoch."""
        return next(entry for entry in reversed(self.last.state.log_history) if "loss" in entry)


def report(folder: Path) -> dict[str, Any]:
    """What a run left as its report."""
    return json.loads((folder / "shrink_report.json").read_text())


def used(folder: Path) -> dict[str, Any]:
    """What the report says of the one method."""
    (method,) = report(folder)["provenance"]["methods"]
    return method


def watch(monkeypatch: Any) -> Runs:
    """Keep the trainers, and leave out of the comparison what takes seconds."""
    runs = Runs()

    def watched(trainer: Any) -> Any:
        class Watched(trainer):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                runs.trainers.append(self)

        return Watched

    for stages, trainers in ((distill_stages, [DistillationTrainer]), (prune_stages, [Trainer, DistillationTrainer])):
        for trainer in trainers:
            monkeypatch.setattr(stages, trainer.__name__, watched(trainer))
        monkeypatch.setattr(stages, "compare", partial(compare, latency_runs=0, peak_memory=False))
    return runs
