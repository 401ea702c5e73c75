"""What `hf-shrink distill` does: check, train, compare, write."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from hf_shrink.cli.distill_settings import choose_preset, choose_task_metric, method_use, training_arguments
from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.cli.report_table import print_report
from hf_shrink.cli.training_rows import number_labels
from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments, TeacherCache, make_student
from hf_shrink.distillation.transfer import with_unlabelled
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
from hf_shrink.inputs.fingerprints import weights_fingerprint
from hf_shrink.inputs.remote import looks_like_path


@dataclass(frozen=True)
class Distillation:
    """What the command was asked for; see its options."""

    teacher: str
    dataset: str
    output_dir: Path
    student: str | None = None
    num_hidden_layers: int | None = None
    teacher_cache: str | None = None
    train_split: str = "train"
    eval_split: str = "test"
    transfer_dataset: str | None = None
    transfer_split: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    max_length: int | None = None
    metric: str | None = None
    preset: str | None = None
    training: Mapping[str, Any] | None = None

    @property
    def given(self) -> Mapping[str, Any]:
        """The training arguments that were named."""
        return self.training or {}

    @property
    def columns(self) -> dict[str, Any]:
        """How rows are read."""
        return {
            "text_column": self.text_column,
            "label_column": self.label_column,
            "max_length": self.max_length,
        }


def run_distillation(options: Distillation) -> ShrinkReport:
    """Distil, compare on the evaluation split, and write student, report and card.

    Args:
        options: What to run.

    Returns:
        The report: teacher, then student.
    """
    _check_output(options)
    training_arguments(options.output_dir, options.given)  # refused now, not after the teacher was loaded
    train, test = (load_rows(options.dataset, split=split) for split in (options.train_split, options.eval_split))
    tokenizer, teacher = load_processing_class(options.teacher), load_model(options.teacher)
    task = find_task(teacher)
    metric = choose_task_metric(options.metric, task, teacher.config.num_labels)
    preset = choose_preset(options.preset, teacher, task)
    args = training_arguments(options.output_dir, options.given, preset)
    rows = _training_rows(train, options, tokenizer, teacher, task)
    set_seed(args.seed)
    student = _make_student(teacher, options)
    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher if options.teacher_cache is None else _open_cache(options.teacher_cache, teacher, args),
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=default_collator(tokenizer, task),
    )
    trainer.train()
    student.eval().save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    use = method_use(args, options.given, preset, trainer.logit_loss)
    report = compare(
        options.teacher,
        options.output_dir,
        test,
        metric=metric,
        processing_class=tokenizer,
        provenance=_provenance(options, task, _with_origin(use, options, rows, train)),
        **options.columns,
    )
    return _write(replace(report, dataset=dataset_name(options.dataset), split=options.eval_split), options.output_dir)


def _check_output(options: Distillation) -> None:
    check_new_folder(options.output_dir)
    if options.transfer_split is not None and options.transfer_dataset is None:
        raise ShrinkError(
            f"`transfer_split` must be a split of `transfer_dataset`, got {options.transfer_split!r} alone. Name the "
            "dataset too."
        )


def _training_rows(train: Dataset, options: Distillation, tokenizer: Any, teacher: Any, task: str) -> Dataset:
    train, columns = number_labels(train, teacher, task, options.columns)
    if options.transfer_dataset is None:
        return tokenize_rows(train, tokenizer, task=task, **columns)
    return with_unlabelled(
        train,
        options.transfer_dataset,
        teacher,
        transfer_split=options.transfer_split,
        processing_class=tokenizer,
        task=task,
        **columns,
    )


def _open_cache(source: str, teacher: Any, args: DistillationTrainingArguments) -> TeacherCache:
    cache = TeacherCache.load(source)
    if cache.settings.weights != weights_fingerprint(teacher):
        raise ShrinkError(
            f"`teacher_cache` must hold the answers of `teacher`, got those of other weights ({cache.name}). Name the "
            "teacher that it was made from, or cache this one with: hf-shrink cache-teacher."
        )
    if args.hidden_weight and not cache.settings.hidden_layers:
        raise ShrinkError(
            "`teacher_cache` must hold hidden states, which this run compares (`hidden_weight` is "
            f"{args.hidden_weight}), got none. Make it with: hf-shrink cache-teacher --preset classification, or "
            "leave them out with --preset none."
        )
    return cache


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


def _with_origin(use: MethodUse, options: Distillation, rows: Dataset, train: Dataset) -> MethodUse:
    """Say what the student learned from, beside how."""
    origin: dict[str, Any] = {"teacher_model": model_name(options.teacher)}
    if options.student is None:
        origin["num_hidden_layers"] = options.num_hidden_layers
    else:
        origin["student"] = model_name(options.student)
    if options.teacher_cache is not None:
        origin["teacher_cache"] = True
    if options.transfer_dataset is not None:
        origin["transfer_dataset"] = dataset_name(options.transfer_dataset)
        origin["transfer_rows"] = len(rows) - len(train)
    return replace(use, options={**origin, **use.options})


def _provenance(options: Distillation, task: str, use: MethodUse) -> Provenance:
    on_hub = [
        name
        for name in (options.teacher, options.dataset, options.transfer_dataset)
        if name and not looks_like_path(name)
    ]
    return Provenance(
        base_model=options.teacher if options.teacher in on_hub else None,
        datasets=tuple(dict.fromkeys(name for name in on_hub if name != options.teacher)),
        pipeline_tag=TASKS[task].pipeline_tag,
        methods=(use,),
    )


def _write(report: ShrinkReport, folder: Path) -> ShrinkReport:
    report.to_json(folder / "shrink_report.json")
    (folder / "README.md").write_text(model_card(report))
    print_report(report)
    return report
