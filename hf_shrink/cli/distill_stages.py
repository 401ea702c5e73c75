"""What `hf-shrink distill` does: check, train, compare, write."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_shrink.cli.report_table import print_report
from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments, make_student
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse, Provenance, ShrinkReport, compare
from hf_shrink.hub import model_card
from hf_shrink.inputs import (
    TASKS,
    dataset_name,
    default_collator,
    find_task,
    load_model,
    load_processing_class,
    load_rows,
    model_name,
    tokenize_rows,
)


@dataclass(frozen=True)
class Distillation:
    """What the command was asked for; see its options."""

    teacher: str
    dataset: str
    output_dir: Path
    student: str | None
    num_hidden_layers: int | None
    train_split: str
    eval_split: str
    text_column: str | None
    label_column: str | None
    max_length: int | None
    training: Mapping[str, Any]


def run_distillation(options: Distillation) -> ShrinkReport:
    """Distil, compare on the evaluation split, and write student, report and card.

    Args:
        options: What to run.

    Returns:
        The report: teacher, then student.
    """
    args = _training_arguments(options)
    train, test = (load_rows(options.dataset, split=split) for split in (options.train_split, options.eval_split))
    tokenizer, teacher = load_processing_class(options.teacher), load_model(options.teacher)
    task = find_task(teacher)
    columns = {
        "text_column": options.text_column,
        "label_column": options.label_column,
        "max_length": options.max_length,
    }
    set_seed(args.seed)
    student = _make_student(teacher, options)
    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=args,
        train_dataset=tokenize_rows(train, tokenizer, task=task, **columns),
        processing_class=tokenizer,
        data_collator=default_collator(tokenizer, task),
    )
    trainer.train()
    student.eval().save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    origin = _provenance(options, task)
    report = compare(
        options.teacher, options.output_dir, test, processing_class=tokenizer, provenance=origin, **columns
    )
    report = replace(report, dataset=dataset_name(options.dataset), split=options.eval_split)
    report.to_json(options.output_dir / "shrink_report.json")
    (options.output_dir / "README.md").write_text(model_card(report))
    print_report(report)
    return report


def _training_arguments(options: Distillation) -> DistillationTrainingArguments:
    known = {field.name for field in fields(DistillationTrainingArguments)}
    if unknown := sorted(set(options.training) - known):
        raise ShrinkError(
            f"`--set` must name a training argument, got {unknown[0]!r}. See TrainingArguments for all of them."
        )
    folder = options.output_dir
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ShrinkError(f"`output_dir` must be new or empty, but {folder} holds something. Choose another folder.")
    defaults = {"save_strategy": "no", "logging_strategy": "epoch", "report_to": []}
    return DistillationTrainingArguments(output_dir=str(folder), **{**defaults, **options.training})


def _make_student(teacher: Any, options: Distillation) -> Any:
    if options.student is None:
        return make_student(
            teacher, num_hidden_layers=options.num_hidden_layers or teacher.config.num_hidden_layers // 2
        )
    if options.num_hidden_layers is not None:
        raise ShrinkError(
            f"`num_hidden_layers` must be left out where `student` is given, got {options.num_hidden_layers} and "
            f"{options.student}. Give one of the two."
        )
    names = {
        "num_labels": teacher.config.num_labels,
        "id2label": teacher.config.id2label,
        "label2id": teacher.config.label2id,
    }
    return load_model(options.student, task=find_task(teacher), **names)


def _provenance(options: Distillation, task: str) -> Provenance:
    teacher = None if Path(options.teacher).exists() else options.teacher
    method = MethodUse(
        options.training["logit_loss"],
        "Knowledge distillation",
        LOSSES[options.training["logit_loss"]].paper,
        {
            "teacher_model": model_name(options.teacher),
            "num_hidden_layers": options.num_hidden_layers,
            **options.training,
        },
    )
    datasets = () if Path(options.dataset).exists() else (options.dataset,)
    return Provenance(base_model=teacher, datasets=datasets, pipeline_tag=TASKS[task].pipeline_tag, methods=(method,))
