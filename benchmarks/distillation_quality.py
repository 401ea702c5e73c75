"""Does distillation help? Three data sets, three students, labels only against a teacher, several seeds.

python benchmarks/distillation_quality.py --data-dir DATA --work-dir distillation-quality --seeds 0 1 2

DATA holds trec6/, sst2/ and banking77/, each with train, validation and test.parquet. A finished run is not repeated,
and several processes may share the work folder (give each its own --datasets or --seeds).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel, TrainerCallback, set_seed

from hf_shrink import DistillationTrainer, DistillationTrainingArguments, TeacherCache, cache_teacher, make_student
from hf_shrink.cli.quickstart_stages import model_source
from hf_shrink.inputs import default_collator, load_model, load_processing_class, load_rows, tokenize_rows
from hf_shrink.versions import length_grouping

RESULTS = Path(__file__).parent / "results" / "distillation_quality.json"
TASK = "single_label_classification"
MAX_LENGTH = 64  # tokens
TEACHERS = {
    "trec6": {"num_train_epochs": 3, "learning_rate": 2e-4},
    "sst2": {"num_train_epochs": 2, "learning_rate": 1e-4},
    "banking77": {"num_train_epochs": 5, "learning_rate": 4e-4},
}
LEARNING_RATES = {"two-layers": 4e-4, "tiny": 1e-3, "two-layers, 10 % labels": 4e-4}
EPOCHS = {
    "two-layers": {"trec6": 3, "sst2": 2, "banking77": 3},
    "tiny": {"trec6": 8, "sst2": 8, "banking77": 8},
    "two-layers, 10 % labels": {"trec6": 2, "sst2": 2, "banking77": 2},
}
ARMS = {
    "labels only": {},
    "labels only, no dropout": {"disable_dropout": True},
    "plain KD": {"alpha": 0.7, "temperature": 2.0},
    "recipe": {"preset": "classification"},
}


@dataclass(frozen=True)
class Data:
    """One data set, tokenized, and the teacher's tokenizer."""

    name: str
    splits: dict[str, Dataset]
    label_names: list[str]
    tokenizer: object

    @classmethod
    def load(cls, folder: Path, tokenizer: object = None) -> "Data":
        """Read the three splits, by default with MiniLM's tokenizer."""
        tokenizer = tokenizer or load_processing_class(model_source(None))
        raw = {split: load_rows(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
        rows = {k: tokenize_rows(v, tokenizer, task=TASK, max_length=MAX_LENGTH) for k, v in raw.items()}
        return cls(folder.name, rows, raw["train"].features["label"].names, tokenizer)


def train(
    model: PreTrainedModel,
    data: Data,
    rows: Dataset,
    folder: Path,
    teacher: TeacherCache | None,
    settings: dict,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict:
    """Train, and measure accuracy on validation and test rows."""
    trainer = make_trainer(model, data, rows, folder, teacher, settings, callbacks)
    trainer.train()
    return accuracy_of(trainer, data)


def accuracy_of(trainer: DistillationTrainer, data: Data) -> dict:
    """Accuracy on validation and test rows."""
    return {split: trainer.evaluate(data.splits[split])["eval_accuracy"] for split in ("validation", "test")}


def make_trainer(
    model: PreTrainedModel,
    data: Data,
    rows: Dataset,
    folder: Path,
    teacher: TeacherCache | None,
    settings: dict,
    callbacks: Sequence[TrainerCallback] = (),
) -> DistillationTrainer:
    """What trains and evaluates; with no teacher as `Trainer` does."""
    steps = settings.get("max_steps") or settings["num_train_epochs"] * len(rows) // 32
    args = DistillationTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        warmup_steps=round(0.1 * steps),
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **length_grouping(),
        **settings,
    )
    return DistillationTrainer(
        model=model,
        teacher_model=teacher,
        args=args,
        train_dataset=rows,
        processing_class=data.tokenizer,
        data_collator=default_collator(data.tokenizer, TASK),
        compute_metrics="accuracy",
        callbacks=list(callbacks),
    )


def make_teacher(data: Data, folder: Path) -> dict:
    """Fine-tune MiniLM, once a data set."""
    stamp = folder / "accuracy.json"
    if stamp.exists():
        return json.loads(stamp.read_text())
    set_seed(0)
    names = dict(enumerate(data.label_names))
    labels = {"num_labels": len(names), "id2label": names, "label2id": {n: i for i, n in names.items()}}
    model = load_model(model_source(None), task=TASK, **labels)
    model.get_input_embeddings().requires_grad_(False)
    settings = {"label_smoothing_factor": 0.1, "seed": 0, **TEACHERS[data.name]}
    accuracy = train(model, data, data.splits["train"], folder, None, settings)
    model.requires_grad_(True).eval().save_pretrained(folder)
    data.tokenizer.save_pretrained(folder)
    stamp.write_text(json.dumps(accuracy))
    return accuracy


def make_cache(data: Data, teacher: Path, folder: Path) -> TeacherCache:
    """The teacher's answers about the training rows, once a data set."""
    rows = data.splits["train"]
    collator = default_collator(data.tokenizer, TASK)
    return cache_teacher(teacher, rows, folder, data_collator=collator, pooling="cls", hidden_layers=[-1])


def student_of(kind: str, teacher: PreTrainedModel) -> PreTrainedModel:
    """A student before training."""
    if kind != "tiny":
        student = make_student(teacher, num_hidden_layers=2)
        student.get_input_embeddings().requires_grad_(False)
        return student
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = BertConfig(**{**teacher.config.to_dict(), **small, "hf_shrink_layers": None})
    return AutoModelForSequenceClassification.from_config(config)


def hide_labels(rows: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Keep a tenth of the labels: all rows with the others as -100, and the tenth alone."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    kept = set(order[: len(rows) // 10])
    labels = [label if i in kept else -100 for i, label in enumerate(rows["labels"])]
    everything = rows.remove_columns("labels").add_column("labels", labels)
    return everything, rows.select(sorted(kept))


def run(kind: str, arm: str, seed: int, data: Data, teacher: PreTrainedModel, cache: TeacherCache, work: Path) -> dict:
    """One student."""
    set_seed(seed)
    rows, guided = data.splits["train"], not arm.startswith("labels")
    settings = {"seed": seed, "learning_rate": LEARNING_RATES[kind], "num_train_epochs": EPOCHS[kind][data.name]}
    if "10 %" in kind:
        everything, tenth = hide_labels(rows, seed)
        settings["max_steps"] = settings["num_train_epochs"] * len(rows) // 32  # as many steps for the tenth alone
        rows = everything if guided else tenth
    student = student_of(kind, teacher)
    return train(student, data, rows, work, cache if guided else None, {**settings, **ARMS[arm]})


def collect(work: Path) -> dict:
    """All finished runs: cell, arm, seed."""
    results: dict = {"teachers": {}, "cells": {}}
    for name in TEACHERS:
        if (stamp := work / name / "teacher" / "accuracy.json").exists():
            results["teachers"][name] = json.loads(stamp.read_text())
    for path in sorted(work.glob("*/*/*/seed-*.json")):
        data, kind, arm, seed = path.relative_to(work).with_suffix("").parts
        cell = results["cells"].setdefault(f"{data}, {kind}", {})
        cell.setdefault(arm, {})[seed.removeprefix("seed-")] = json.loads(path.read_text())
    return results


def summarize(results: dict) -> None:
    """Print each cell's gain over labels only, with its standard error over the paired seeds."""
    for name, accuracy in results["teachers"].items():
        print(f"{name:36} {'teacher':12} {100 * accuracy['test']:6.2f}")
    for cell, arms in results["cells"].items():
        base = arms.get("labels only", {})
        for arm, seeds in arms.items():
            line = f"{cell:36} {arm:12} {mean(100 * r['test'] for r in seeds.values()):6.2f}"
            gains = [100 * (seeds[s]["test"] - base[s]["test"]) for s in seeds if s in base]
            if arm != "labels only" and len(gains) > 1:
                error = stdev(gains) / len(gains) ** 0.5
                line += f"   gain {mean(gains):+.2f}, 1 SE {error:.2f}, {len(gains)} seeds"
            print(line)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("distillation-quality"))
    parser.add_argument("--datasets", nargs="+", default=list(TEACHERS))
    parser.add_argument("--students", nargs="+", default=list(EPOCHS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.datasets:
        data, folder = Data.load(options.data_dir / name), options.work_dir / name
        make_teacher(data, folder / "teacher")
        teacher, cache = load_model(folder / "teacher"), make_cache(data, folder / "teacher", folder / "cache")
        for seed, kind, arm in product(options.seeds, options.students, options.arms):
            path = folder / kind / arm / f"seed-{seed}.json"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(run(kind, arm, seed, data, teacher, cache, path.parent)))
            print(name, kind, arm, seed, path.read_text(), flush=True)
    results = collect(options.work_dir)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    summarize(results)


if __name__ == "__main__":
    main()
