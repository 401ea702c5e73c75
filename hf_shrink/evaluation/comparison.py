"""Models held against their original: same rows, same machine, same minute."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.candidates import Candidate, load_candidate
from hf_shrink.evaluation.chosen_metric import ChosenMetric, choose_metric
from hf_shrink.evaluation.compared_rows import class_order, median_length, prepare_rows, vocabulary_size
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.evaluation.latency import Latency, measure_latencies
from hf_shrink.evaluation.measurement import Measurement, measure_costs
from hf_shrink.evaluation.provenance import Provenance
from hf_shrink.evaluation.quality import Reading, check_comparable, label_names, predict_all
from hf_shrink.evaluation.report import Entry, ShrinkReport
from hf_shrink.evaluation.scores import Score, score_all
from hf_shrink.evaluation.vocabularies import in_the_words_of_the_first
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import dataset_name, load_rows
from hf_shrink.inputs.models import load_processing_class
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.inputs.rows import default_collator, padding_right
from hf_shrink.inputs.tasks import TASKS, find_task


def compare(
    original: Any,
    shrunk: Any,
    dataset: Any,
    *,
    metric: Any = "accuracy",
    task: str | None = None,
    processing_class: Any = None,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    sequence_length: int | None = None,
    threads: int | None = None,
    latency_runs: int = 50,
    peak_memory: bool = True,
    names: Sequence[str] | None = None,
    methods: Sequence[str | None] | None = None,
    higher_is_better: bool | None = None,
    progress: bool = True,
    provenance: Provenance | None = None,
) -> ShrinkReport:
    """Measure what shrinking cost and what it brought, on the same rows and the same machine.

    Quality comes with a 95 % interval (Wilson's for shares of independent rows, the bootstrap for all else) and,
    against the original, with the exact McNemar test where every row is right or wrong. Latency is timed in turns.

    Args:
        original: The model that the others are held against: instance, folder or Hub id.
        shrunk: A smaller model or an artifact (anything with `.path` and `.load()`), or a list of them in the order in
            which they were made.
        dataset: Labelled rows: a `Dataset`, a path or a Hub id. Language models are scored on the text itself.
        metric: Name in `METRICS`, a function of predictions and references, or an `evaluate.EvaluationModule`.
        task: Name in `TASKS`; found from the original's head where it is None.
        processing_class: Tokenizer or processor, or a list with one for each model, the original's first. None takes
            what lies beside the original, and for a model with a smaller vocabulary what lies beside itself. Language
            models that read with a tokenizer of their own are scored per token of the original's, so that their
            perplexities stay comparable (masked ones, whose masks fall otherwise where tokens differ, per own token).
        split: Of the dataset.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        data_collator: Makes padded batches; None takes the task's own.
        batch_size: Rows a batch, for the quality.
        max_length: Tokens a row is cut to; None takes the tokenizer's and the models' limit.
        sequence_length: Tokens of the timed and counted pass; None takes the median of the rows.
        threads: Threads of the timed pass; None takes torch's setting.
        latency_runs: Timed passes of each model; 0 leaves the latency out.
        peak_memory: Whether to start a process for each model's memory, which takes some seconds.
        names: What the report calls the models, the original first.
        methods: How the models were made, the original first (None); artifacts know theirs.
        higher_is_better: Of a metric that is not ours; wrong, it would turn every verdict round.
        progress: Whether to show a bar.
        provenance: Where the models come from; None takes what the arguments tell.

    Returns:
        The report.
    """
    check_counts(batch_size=batch_size, max_length=max_length, sequence_length=sequence_length, threads=threads)
    check_counts(latency_runs=latency_runs or None)  # 0 leaves the latency out
    candidates = _candidates(original, shrunk, task, names, methods)
    models = [candidate.model for candidate in candidates]
    task = find_task(models[0], task)
    check_comparable(task)
    orders = [class_order(models[0], model, task) for model in models]
    classes = len(label_names(models[0]))
    chosen = choose_metric(metric, task, num_labels=classes, higher_is_better=higher_is_better)
    raw = load_rows(dataset, split)
    readers = _readers(processing_class, candidates, raw, needed=data_collator is None)
    columns: dict[str, Any] = {"text_column": text_column, "label_column": label_column}
    tokenized = prepare_rows(raw, models, readers, task, chosen, **columns, max_length=max_length)
    readings = _readings(tokenized, readers, task, data_collator)
    rows = tokenized[0]
    length = median_length(rows) if sequence_length is None else sequence_length

    steps = len(models) + latency_runs + -(-len(rows) // batch_size)
    with tqdm(total=steps, desc="Comparing", disable=not progress, leave=False) as bar:
        costs = _costs(candidates, task, length, peak_memory, bar)
        latencies = _latencies(models, length, threads, latency_runs, bar)
        bar.set_postfix_str("quality")
        predictions = predict_all(models, readings, batch_size, task=task, orders=orders, on_batch=bar.update)
        predictions = in_the_words_of_the_first(predictions, tokenized, readers, task)
        bar.set_postfix_str("intervals")
        scores = score_all(chosen, predictions)
    parts = zip(candidates, scores, costs, latencies, strict=True)
    return ShrinkReport(
        task=task,
        metric=chosen.name,
        dataset=dataset_name(dataset),
        split=split or (None if raw.split is None else str(raw.split)),
        rows=len(predictions[0].references),
        entries=tuple(_entry(*part) for part in parts),
        higher_is_better=chosen.higher_is_better,
        percent=chosen.percent,
        interval=_interval_title(chosen, scores),
        macs_shape=(1, length) if "input_ids" in rows.column_names else None,
        provenance=provenance or _provenance(original, dataset, task),
        environment=find_environment(latencies[0].threads if latencies[0] is not None else None),
    )


def _candidates(
    original: Any, shrunk: Any, task: str | None, names: Sequence[str] | None, methods: Sequence[str | None] | None
) -> list[Candidate]:
    given = [original, *(shrunk if isinstance(shrunk, list | tuple) else [shrunk])]
    if len(given) < 2:
        raise ShrinkError("`shrunk` must name at least 1 model, got none. Use measure() for a model alone.")
    for argument, values in (("names", names), ("methods", methods)):
        if values is not None and (isinstance(values, str) or len(values) != len(given)):
            raise ShrinkError(
                f"`{argument}` must hold {len(given)} values, the original's first, got {values!r}. Give one a model."
            )
    candidates: list[Candidate] = []
    for i, one in enumerate(given):
        candidate = load_candidate(one, task)
        name = _unique(candidate.name, [c.name for c in candidates]) if names is None else names[i]
        candidates.append(replace(candidate, name=name, method=candidate.method if methods is None else methods[i]))
    return candidates


def _readers(processing_class: Any, candidates: Sequence[Candidate], raw: Dataset, *, needed: bool) -> list[Any]:
    """What each model's rows are tokenised with."""
    if isinstance(processing_class, list | tuple):
        if len(processing_class) != len(candidates):
            raise ShrinkError(
                f"`processing_class` must hold {len(candidates)} values in a list, the original's first, got "
                f"{len(processing_class)}. Give one a model, or one for all."
            )
        return list(processing_class)
    tokenized = bool(set(TOKENIZED) & set(raw.column_names))
    if processing_class is not None or (tokenized and not needed):
        return [processing_class] * len(candidates)
    first = load_processing_class(candidates[0].source)
    largest = vocabulary_size(candidates[0].model)
    readers = [first]
    for candidate in candidates[1:]:
        own = vocabulary_size(candidate.model)
        smaller = own is not None and largest is not None and own < largest
        readers.append(load_processing_class(candidate.source) if smaller and not tokenized else first)
    return readers


def _readings(
    rows: Sequence[Dataset], readers: Sequence[Any], task: str, collator: Callable[..., Any] | None
) -> list[Reading]:
    made = {
        id(own): Reading(own, collator or default_collator(padding_right(reader), task))
        for own, reader in zip(rows, readers, strict=True)
    }
    return [made[id(own)] for own in rows]


def _unique(name: str, taken: Sequence[str]) -> str:
    numbered = [name, *(f"{name} ({i})" for i in range(2, len(taken) + 2))]
    return next(candidate for candidate in numbered if candidate not in taken)


def _costs(candidates: Sequence[Candidate], task: str, length: int, peak_memory: bool, bar: Any) -> list[Measurement]:
    costs = []
    bar.set_postfix_str("size, MACs, memory")
    for c in candidates:
        costs.append(measure_costs(c, batch_size=1, sequence_length=length, peak_memory=peak_memory, task=task))
        bar.update()
    return costs


def _latencies(
    models: Sequence[Any], length: int, threads: int | None, runs: int, bar: Any
) -> Sequence[Latency | None]:
    if runs == 0:
        return [None] * len(models)
    bar.set_postfix_str("latency")
    return measure_latencies(models, sequence_length=length, threads=threads, runs=runs, on_round=bar.update)


def _interval_title(metric: ChosenMetric, scores: Sequence[Score]) -> str | None:
    if all(score.interval is None for score in scores):
        return None
    return "Wilson 95 %" if metric.trials else "bootstrap 95 %"


def _entry(candidate: Candidate, score: Score, cost: Measurement, latency: Latency | None) -> Entry:
    low, high = score.interval or (None, None)
    difference_low, difference_high = score.difference or (None, None)
    return Entry(
        name=candidate.name,
        method=candidate.method,
        value=score.value,
        low=low,
        high=high,
        agreement=score.agreement,
        p_value=score.p_value,
        difference_low=difference_low,
        difference_high=difference_high,
        size_bytes=cost.size_bytes,
        parameters=cost.parameters,
        macs=cost.macs,
        macs_note=cost.macs_note,
        latency=latency,
        peak_memory_bytes=cost.peak_memory_bytes,
    )


def _provenance(original: Any, dataset: Any, task: str) -> Provenance:
    on_hub = [isinstance(source, str) and not looks_like_path(source) for source in (original, dataset)]
    return Provenance(
        base_model=original if on_hub[0] else None,
        datasets=(dataset,) if on_hub[1] else (),
        pipeline_tag=TASKS[task].pipeline_tag,
    )
