"""What dropout does to the quickstart's student: the same teachers and seeds, with dropout and without.

python benchmarks/student_dropout.py --seeds 0 1 2 --work-dir quickstart-seeds

Needs the work folder of quickstart_seeds.py, whose students are the ones without.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev

from transformers import set_seed

from hf_shrink import DistillationTrainer, DistillationTrainingArguments, compare, make_student
from hf_shrink.cli.quickstart_stages import BANKING77, DISTILLATION, MAX_LENGTH, STUDENT, TASK
from hf_shrink.inputs import default_collator, load_model, load_processing_class, load_rows, tokenize_rows
from hf_shrink.versions import length_grouping

RESULTS = Path(__file__).parent / "results" / "student_dropout.json"
EPOCHS = 6


def train_with_dropout(teacher_folder: Path, folder: Path, seed: int) -> None:
    """Distil as the quickstart does, but with the dropout that the model came with."""
    set_seed(seed)
    tokenizer, teacher = load_processing_class(teacher_folder), load_model(teacher_folder)
    student = make_student(teacher, num_hidden_layers=1)
    student.get_input_embeddings().requires_grad_(False)
    rows = tokenize_rows(load_rows(BANKING77, split="train"), tokenizer, max_length=MAX_LENGTH, task=TASK)
    recipe = {**STUDENT, **DISTILLATION, "disable_dropout": False}
    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=DistillationTrainingArguments(
            output_dir=str(folder),
            seed=seed,
            num_train_epochs=EPOCHS,
            warmup_steps=round(0.1 * EPOCHS * len(rows) / recipe["per_device_train_batch_size"]),
            weight_decay=0.01,
            save_strategy="no",
            report_to=[],
            **length_grouping(),
            **recipe,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=default_collator(tokenizer, TASK),
    )
    trainer.train()
    student.requires_grad_(True).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train one student a seed, and compare all on the test rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("quickstart-seeds"), help="of quickstart_seeds.py")
    options = parser.parse_args()
    results = {}
    for seed in options.seeds:
        folder = options.work_dir / f"seed-{seed}"
        train_with_dropout(folder / "teacher", options.work_dir / f"dropout-{seed}", seed)
        models = [folder / "student", options.work_dir / f"dropout-{seed}"]
        report = compare(
            folder / "teacher",
            models,
            load_rows(BANKING77, split="test"),
            max_length=MAX_LENGTH,
            latency_runs=0,
            peak_memory=False,
            names=["teacher", "without dropout", "with dropout"],
        )
        results[seed] = [asdict(entry) for entry in report.entries]
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    gains = [100 * (entries[1]["value"] - entries[2]["value"]) for entries in results.values()]
    spread = f" ± {stdev(gains):.2f}" if len(gains) > 1 else ""
    print(f"without dropout less with it: {mean(gains):.2f}{spread} points over {len(gains)} seeds")


if __name__ == "__main__":
    main()
