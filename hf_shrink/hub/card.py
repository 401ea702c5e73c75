"""Model cards: from a report, or from what a trainer knows where nothing was compared yet."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.provenance import MethodUse
from hf_shrink.evaluation.report import Entry, ShrinkReport
from hf_shrink.evaluation.table import drawbacks, format_value, metric_title
from hf_shrink.hub.rendering import TAG, hub_ids, render
from hf_shrink.hub.usage import is_graph, loading_code, runtime_of, session_code
from hf_shrink.inputs.tasks import TASKS

HERE = "."  # a card without a repository is read in its model's folder
QUANTIZING = ("onnx-", "openvino-", "optimum-", "bnb-", "torchao-", "autoround-")
HUB_METRICS = {  # the Hub's name of a metric, where it is another than ours
    "f1_macro": "f1",
    "f1_micro": "f1",
    "seqeval_f1": "seqeval",
    "squad_f1": "squad",
    "spearman": "spearmanr",
    "pearson": "pearsonr",
    "r2": "r_squared",
}
KNOWN_METRICS = ("accuracy", "f1", "matthews_correlation", "exact_match", "perplexity", "mse", "mae", *HUB_METRICS)
UNMEASURED = {
    "value": "the quality",
    "size_bytes": "the size on disk",
    "parameters": "the parameters",
    "macs": "the MACs",
    "latency": "the latency",
    "peak_memory_bytes": "the peak memory",
}


def model_card(report: ShrinkReport, *, entry: int = -1, repo_id: str | None = None, tags: Sequence[str] = ()) -> str:
    """Write the card of one model of a report; whatever it claims stands in the report.

    Args:
        report: What was measured.
        entry: Position of the model in `report.entries`; -1 is the last.
        repo_id: Where the model will stand; without it the card says how to load the model from its own folder.
        tags: Tags beside "hf-shrink" and the methods.

    Returns:
        The text of README.md; equal arguments give equal bytes.

    Raises:
        ShrinkError: If the report has no such entry.
    """
    count = len(report.entries)
    if not -count <= entry < count:
        raise ShrinkError(f"`entry` must be in [{-count}, {count - 1}], got {entry}. -1 is the last model made.")
    position = entry % count
    model, methods = report.entries[position], _methods(report, position)
    method = _last_method(model, methods)
    source, runtime = repo_id or HERE, runtime_of(method)
    return render(
        "model_card",
        _metadata(report, model, methods, repo_id, tags),
        title=_title(model, repo_id),
        report=report,
        entry=model,
        methods=methods,
        is_original=position == 0,
        verdict=None if position == 0 else report.verdict(position),
        headline=_headline(report, model, position),
        loading=loading_code(report.task, source, method, remote=_is_remote(methods)),
        runtime=runtime,
        session=session_code(source, repo_id is None, runtime) if runtime else None,
        limits=_limits(report, model, method, position),
        version=None if report.environment is None else report.environment.hf_shrink,
    )


def training_card(
    student: str,
    *,
    teacher_model: str | None = None,
    task: str,
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    tags: Sequence[str] = (),
    methods: Sequence[MethodUse] = (),
    pipeline_tag: str | None = None,
    library_name: str = "transformers",
    repo_id: str | None = None,
) -> str:
    """Write the card of a model that was trained and not yet compared; it claims what the trainer logged, no more.

    Args:
        student: Name of the model.
        teacher_model: Name or Hub id of the teacher; never a path.
        task: Name in `TASKS`.
        hyperparameters: Name to JSON value.
        metrics: The last evaluation, such as {"eval_accuracy": 0.92}; empty if there was none.
        datasets: Hub ids or names of the training data.
        base_model: Hub id of what the student began as.
        license: The Hub's identifier of the licence.
        language: ISO 639-1 codes.
        tags: Tags beside "hf-shrink" and the methods.
        methods: The methods that were used.
        pipeline_tag: The Hub's name of the task; found from `task` if None.
        library_name: "peft" for an adapter.
        repo_id: Where the model will stand.

    Returns:
        The text of README.md.
    """
    values = {name.removeprefix("eval_"): value for name, value in metrics.items() if _is_quality(name)}
    adapter = library_name == "peft"
    metadata = {
        "library_name": library_name,
        **_base(base_model, "adapter" if adapter else "finetune"),
        "license": license,
        "language": list(language),
        "pipeline_tag": pipeline_tag or (TASKS[task].pipeline_tag if task in TASKS else None),
        "datasets": hub_ids(datasets),
        "metrics": list(dict.fromkeys(HUB_METRICS.get(name, name) for name in values if name in KNOWN_METRICS)),
        "tags": _tags([use.name for use in methods], tags),
    }
    return render(
        "training_card",
        metadata,
        title=student,
        teacher=teacher_model,
        base_model=metadata.get("base_model"),
        datasets=list(datasets),
        methods=list(methods),
        metrics=values,
        hyperparameters=dict(hyperparameters),
        loading=None if adapter else loading_code(task, repo_id or HERE, None),
    )


# ---------------------------------------------------------------------- metadata
def _metadata(
    report: ShrinkReport, entry: Entry, methods: Sequence[MethodUse], repo_id: str | None, tags: Sequence[str]
) -> dict[str, Any]:
    origin = report.provenance
    relation = "quantized" if (_last_method(entry, methods) or "").startswith(QUANTIZING) else "finetune"
    pipeline_tag = origin.pipeline_tag or (TASKS[report.task].pipeline_tag if report.task in TASKS else None)
    measured = entry.value is not None
    return {
        "library_name": "transformers",
        **_base(origin.base_model, relation),
        "license": origin.license,
        "language": list(origin.language),
        "pipeline_tag": pipeline_tag,
        "datasets": hub_ids(origin.datasets),
        "metrics": [_hub_metric(report.metric)] if measured else [],
        "tags": _tags([*[use.name for use in methods], *([entry.method] if entry.method else [])], tags),
        "model-index": _model_index(report, entry, pipeline_tag or report.task, repo_id) if measured else [],
    }


def _base(base_model: str | None, relation: str) -> dict[str, str]:
    return {"base_model": base_model, "base_model_relation": relation} if base_model and hub_ids([base_model]) else {}


def _tags(methods: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([TAG, *methods, *more]))


def _model_index(report: ShrinkReport, entry: Entry, task: str, repo_id: str | None) -> list[dict[str, Any]]:
    split = {} if report.split is None else {"split": report.split}
    metric = {"type": _hub_metric(report.metric), "name": metric_title(report.metric), "value": entry.value}
    result = {
        "task": {"type": task},
        "dataset": {"name": report.dataset, "type": report.dataset, **split},
        "metrics": [metric],
    }
    return [{"name": _title(entry, repo_id), "results": [result]}]


def _hub_metric(metric: str) -> str:
    return HUB_METRICS.get(metric, metric)


def _title(entry: Entry, repo_id: str | None) -> str:
    return repo_id.split("/")[-1] if repo_id else entry.name


# ---------------------------------------------------------------------- body
def _methods(report: ShrinkReport, position: int) -> tuple[MethodUse, ...]:
    """The methods that a model went through; the last model has been through all of them."""
    methods = report.provenance.methods
    if position in (0, len(report.entries) - 1):
        return methods if position or len(report.entries) == 1 else ()
    names = [use.name for use in methods]
    own = report.entries[position].method
    return methods[: names.index(own) + 1] if own in names else methods[:position]


def _last_method(entry: Entry, methods: Sequence[MethodUse]) -> str | None:
    return entry.method or (methods[-1].name if methods else None)


def _is_remote(methods: Sequence[MethodUse]) -> bool:
    """Whether a pruning left files that stock classes cannot load."""
    return any(use.options.get("layout") == "remote" for use in methods)


def _headline(report: ShrinkReport, entry: Entry, position: int) -> str:
    """What a reader wants to know first, in one sentence; nothing that was not measured."""
    metric = metric_title(report.metric)
    if position == 0:
        return f"{metric}: {format_value(report, entry.value)}." if entry.value is not None else ""
    facts = []
    if entry.value is not None and report.original.value is not None:
        before = format_value(report, report.original.value)
        facts.append(f"{metric} {format_value(report, entry.value)} (the original: {before})")
    for ratio, more, less in (
        (report.size_ratio_of(entry), "smaller on disk", "larger on disk"),
        (report.speedup_of(entry), "faster", "slower"),
    ):
        if ratio is not None:
            facts.append(f"{ratio:.2f}× {more}" if ratio >= 1 else f"{1 / ratio:.2f}× {less}")
    return f"{', '.join(facts)}." if facts else ""


def _limits(report: ShrinkReport, entry: Entry, method: str | None, position: int) -> list[str]:
    limits = drawbacks(report, entry) if position else []
    if entry.value is not None:
        limits.append(
            f"Its quality is known on {report.rows:,} rows of {report.dataset} only; on other data it may differ."
        )
    if position and entry.agreement is not None and entry.agreement < 1:
        share = 100 * (1 - entry.agreement)
        limits.append(f"It answers otherwise than the original on {share:.1f} % of these rows, rightly or wrongly.")
    if entry.latency is not None:
        limits.append("Latencies hold for the machine, batch and length above; measure on yours.")
    if is_graph(method):
        limits.append("The graph is for inference: to train further, train the float model and quantize it again.")
    if missing := [words for name, words in UNMEASURED.items() if getattr(entry, name) is None]:
        limits.append(f"Not measured: {', '.join(missing)}.")
    limits.append("It was not examined for bias: expect that of the original and of the training data.")
    return limits


def _is_quality(name: str) -> bool:
    """Leave out what describes the evaluation and not the model."""
    plain = name.removeprefix("eval_")
    return plain != "epoch" and not plain.endswith(("runtime", "_per_second", "preparation_time"))
