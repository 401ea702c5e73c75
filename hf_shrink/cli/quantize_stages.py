"""What `hf-shrink quantize` does: check, quantize, compare, write, push."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table

from hf_shrink.cli.distill_settings import choose_task_metric
from hf_shrink.cli.quantize_outcome import missed_drop, quantization_notes, quantization_use
from hf_shrink.cli.quantize_settings import AUTO, UNLABELLED, Quantization, check_method, check_options
from hf_shrink.cli.report_table import print_report
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import Provenance, ShrinkReport, compare
from hf_shrink.evaluation.decoding import DECODERS
from hf_shrink.evaluation.table import drawbacks, format_bytes
from hf_shrink.hub import model_card
from hf_shrink.hub.files import CARD, REPORT
from hf_shrink.inputs import TASKS, dataset_name, find_task, load_model, load_rows
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.quantization import QUANTIZERS, QuantizedArtifact, quantization_sensitivity, quantize
from hf_shrink.quantization.automatic import choose_method, usable_methods
from hf_shrink.quantization.calibration import needs_rows
from hf_shrink.quantization.predicted_size import predict_bytes


def run_quantization(options: Quantization) -> QuantizedArtifact:
    """Quantize, compare where rows are given, and write model, report and card; push where that was asked for.

    Args:
        options: What to run; its `output_dir` is given.

    Returns:
        The artifact.

    Raises:
        ShrinkError: If the metric drops by more than was allowed; the best that was found is left in the folder.
    """
    check_options(options)
    rows = load_rows(options.dataset, split=options.split) if options.dataset else None
    metric = None if rows is None else _find_metric(options)
    given = _rows(options, rows, metric)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`max_drop` of .* was not kept")  # the last line says so
        artifact = quantize(
            options.model,
            options.method,
            output_dir=options.output_dir,
            task=options.task,
            ignore=options.ignore,
            **given,
            **options.options,
        )
    _print_artifact(artifact)
    if options.sensitivity is not None and options.known_map is None:
        _write_sensitivity(options.sensitivity, artifact.method, given.get("calibration_dataset", rows), options)
    if rows is not None and metric is not None:
        artifact.report = _compare(artifact, rows, metric, options)
    if missed := missed_drop(artifact):
        raise ShrinkError(missed)
    if options.push is not None:
        Console().print(artifact.push_to_hub(options.push, private=options.private), soft_wrap=True)
    return artifact


def _find_metric(options: Quantization) -> str:
    """Refuse, before anything is quantized, a model that cannot be compared, or a metric that does not fit it."""
    model = load_model(options.model, task=options.task)
    task = find_task(model, options.task)
    if task not in DECODERS:
        raise ShrinkError(
            f"`dataset` must be left out for {task}: only models for {', '.join(sorted(DECODERS))} can be compared. "
            "Measure in your own way what load() of the artifact gives."
        )
    named = None if options.metric in UNLABELLED else options.metric
    return choose_task_metric(named, task, model.config.num_labels)


def _rows(options: Quantization, rows: Dataset | None, metric: str | None) -> dict[str, Any]:
    """The arguments of `quantize` that say what rows are read, where any are."""
    given: dict[str, Any] = {}
    if options.calibration_dataset is not None:
        calibration = load_rows(options.calibration_dataset, split=options.calibration_split)
        given |= {"calibration_dataset": calibration, "calibration_size": options.calibration_size}
    if options.max_drop is not None:
        given |= {"evaluation_dataset": rows, "metric": options.metric or metric, "max_drop": options.max_drop}
    if options.known_map is not None:
        given["sensitivity"] = options.known_map
    return {**given, **options.reading, "seed": options.seed} if given else {}


# ---------------------------------------------------------------------- what came of it
def _write_sensitivity(path: Path, method: str, rows: Dataset | None, options: Quantization) -> None:
    found = quantization_sensitivity(
        options.model, method, rows, task=options.task, seed=options.seed, **options.reading
    )
    if path.suffix == ".json":
        found.to_json(path)
    else:
        found.plot(path)
    worst = found.modules[0]
    Console().print(
        f"• {path}: the most sensitive of {len(found.modules)} modules is {worst} ({found.divergences[worst]:.2g}, "
        f"{found.unit}).",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _print_artifact(artifact: QuantizedArtifact) -> None:
    difference = artifact.record["proof"]["reload_difference"]
    words = (
        f"{artifact.path}: {artifact.method}, {format_bytes(artifact.size_bytes)}; loaded in a fresh process without "
        f"hf_shrink, it answers as here but for {difference:.1g} of the largest output.",
        *quantization_notes(artifact),
    )
    for line in words:
        Console().print(f"• {line}", soft_wrap=True, markup=False, highlight=False)


def _compare(artifact: QuantizedArtifact, rows: Dataset, metric: str, options: Quantization) -> ShrinkReport:
    """Measure, and write report and card."""
    task = artifact.record["task"]
    report = compare(
        options.model,
        artifact,
        rows,
        metric=metric,
        task=options.task,
        provenance=Provenance(
            base_model=None if looks_like_path(options.model) else options.model,
            pipeline_tag=TASKS[task].pipeline_tag,
            methods=(quantization_use(artifact),),
            notes=quantization_notes(artifact),
        ),
        **options.reading,
    )
    report = replace(report, dataset=dataset_name(options.dataset), split=options.split)
    report.to_json(artifact.path / REPORT)
    (artifact.path / CARD).write_text(model_card(report, tags=("quantization",)), encoding="utf-8")
    print_report(report)
    for words in drawbacks(report, report.entries[1]):
        Console().print(f"• {words}")
    return report


# ---------------------------------------------------------------------- before anything is written
def print_methods(options: Quantization) -> None:
    """Print what each method would write, and which of them can run here.

    Args:
        options: What was asked for.
    """
    check_method(options)
    model = load_model(options.model, task=options.task)
    task = find_task(model, options.task)
    now = sum(parameter.nbytes for parameter in model.parameters())
    usable = usable_methods(task)
    names = [name for name, m in QUANTIZERS.items() if task in m.facts["tasks"] and options.method in (AUTO, name)]
    picture = Table(header_style="bold", title=f"{options.model}: {task}, {format_bytes(now)} of weights")
    for title in ("method", "predicted", "smaller", "reads rows", "here"):
        picture.add_column(title, justify="right" if title in ("predicted", "smaller") else "left")
    for name in names:
        facts = QUANTIZERS[name].facts
        size = predict_bytes(model, facts["format"], options.ignore)
        extra = f"[{facts['extra']}]" if facts["extra"] else ""
        here = "yes" if name in usable else f'pip install "hf_shrink{extra}"'
        reads = ("yes" if needs_rows(QUANTIZERS[name]) else "if given") if facts["calibrated"] else "no"
        picture.add_row(name, format_bytes(size), f"{now / size:.2f}×", reads, here.replace("[", r"\["))
    console = Console()
    console.print(picture)
    if options.method == AUTO:
        chosen = choose_method(task, calibrated=options.calibration_dataset is not None)
        console.print(f"{AUTO} takes {chosen.method}: {chosen.reason}.", soft_wrap=True)
