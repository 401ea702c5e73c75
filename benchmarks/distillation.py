"""What distillation adds to a training step: against Trainer, and against a loss written by hand, in one run.

python benchmarks/distillation.py --rounds 7

Each round runs every arm for the same steps on the same batches, in turn, so that a busy machine slows all of them;
a ratio is taken within its round. Medians of the rounds are printed and kept as JSON.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_shrink import DistillationTrainer, DistillationTrainingArguments, TeacherCache, cache_teacher, make_student
from hf_shrink.cli.quickstart_stages import BANKING77, MAX_LENGTH, TASK, model_source
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.inputs import default_collator, load_model, load_processing_class, load_rows, tokenize_rows

RESULTS = Path(__file__).parent / "results" / "distillation.json"
ALPHA, TEMPERATURE = 0.5, 2.0
WARM_UP = 5  # steps


class StepTimes(TrainerCallback):
    """Seconds from the end of one step to the end of the next: data loading is part of a step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003 - Trainer's signature
        """Note the time."""
        self.ends.append(time.perf_counter())

    def mean(self) -> float:
        """Seconds a step after the first ones."""
        return (self.ends[-1] - self.ends[WARM_UP]) / (len(self.ends) - 1 - WARM_UP)


class HandWritten(Trainer):
    """The compute_loss that the usual tutorials give."""

    teacher: nn.Module

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # noqa: ANN001, ANN003, ANN201
        """Forward KL and cross-entropy."""
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher(**inputs).logits
        own = F.log_softmax(outputs.logits / TEMPERATURE, dim=-1)
        theirs = F.softmax(teacher_logits / TEMPERATURE, dim=-1)
        loss = ALPHA * TEMPERATURE**2 * F.kl_div(own, theirs, reduction="batchmean") + (1 - ALPHA) * outputs.loss
        return (loss, outputs) if return_outputs else loss


def seconds_a_step(arm: str, teacher: nn.Module, cache: TeacherCache, rows: Dataset, tokenizer, options) -> float:  # noqa: ANN001
    """Train one arm for some steps."""
    set_seed(0)
    settings = {
        "per_device_train_batch_size": options.batch_size,
        "max_steps": options.steps,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 20,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }
    times = StepTimes()
    common = {
        "model": make_student(teacher, num_hidden_layers=2),
        "train_dataset": rows,
        "data_collator": default_collator(tokenizer, TASK),
        "callbacks": [times],
    }
    with TemporaryDirectory() as folder:
        if arm in ("Trainer", "by hand"):
            trainer_class = Trainer if arm == "Trainer" else HandWritten
            trainer = trainer_class(args=TrainingArguments(folder, **settings), **common)
            trainer.teacher = teacher
        else:
            guide = {"no teacher": None, "teacher": teacher, "cache": cache, "cache, preset": cache}[arm]
            preset = "classification" if arm == "cache, preset" else None
            args = DistillationTrainingArguments(
                folder, alpha=ALPHA, temperature=TEMPERATURE, preset=preset, **settings
            )
            trainer = DistillationTrainer(teacher_model=guide, args=args, **common)
        trainer.train()
    return times.mean()


def teacher_forward(teacher: nn.Module, rows: Dataset, tokenizer, options) -> float:  # noqa: ANN001
    """Seconds of the teacher's forward alone, a batch."""
    collate = default_collator(tokenizer, TASK)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    spent = []
    for start in range(0, options.steps * options.batch_size, options.batch_size):
        batch = collate([rows[i] for i in order[start : start + options.batch_size]])
        inputs = {k: v.to(teacher.device) for k, v in batch.items() if k != "labels"}
        begin = time.perf_counter()
        with torch.no_grad():
            teacher(**inputs)
        spent.append(time.perf_counter() - begin)
    return sum(spent[WARM_UP:]) / len(spent[WARM_UP:])


ARMS = ("Trainer", "no teacher", "cache", "cache, preset", "teacher", "by hand")


def main() -> None:
    """Run the rounds and print medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    source = model_source(None)
    tokenizer = load_processing_class(source)
    rows = tokenize_rows(load_rows(BANKING77, split="train"), tokenizer, task=TASK, max_length=MAX_LENGTH)
    rows = rows.select(range(options.steps * options.batch_size))
    teacher = load_model(source, task=TASK, num_labels=77).eval().requires_grad_(False)  # speed asks for no training
    with TemporaryDirectory() as folder:
        cache = cache_teacher(teacher, rows, folder, processing_class=tokenizer, hidden_layers=[-1], pooling="cls")
        found = []
        for _ in range(options.rounds):
            seconds = {arm: seconds_a_step(arm, teacher, cache, rows, tokenizer, options) for arm in ARMS}
            seconds["teacher's forward"] = teacher_forward(teacher, rows, tokenizer, options)
            found.append(seconds)
    pairs = {
        "no teacher / Trainer": lambda s: s["no teacher"] / s["Trainer"],
        "cache / Trainer": lambda s: s["cache"] / s["Trainer"],
        "cache with the preset / Trainer": lambda s: s["cache, preset"] / s["Trainer"],
        "teacher / (Trainer + teacher's forward)": lambda s: s["teacher"] / (s["Trainer"] + s["teacher's forward"]),
        "teacher / by hand": lambda s: s["teacher"] / s["by hand"],
        "cache / by hand": lambda s: s["cache"] / s["by hand"],
    }
    ratios = {name: [ratio(seconds) for seconds in found] for name, ratio in pairs.items()}
    for name, values in ratios.items():
        print(f"{name:42} {median(values):.3f}   ({min(values):.3f} to {max(values):.3f})")
    result = {"environment": asdict(find_environment()), "options": vars(options), "seconds": found, "ratios": ratios}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
