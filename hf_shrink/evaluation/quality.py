"""How good a model is: a metric, its interval, and whether a difference is more than chance."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.intervals import RESAMPLES, bootstrap, mcnemar, wilson
from hf_shrink.evaluation.metrics import METRICS
from hf_shrink.evaluation.predictions import Predictions, agreement, check_readable, read_logits

SLOW_RESAMPLES = 200  # metrics that walk through Python lists, and those that users bring


@dataclass(frozen=True)
class ChosenMetric:
    """A metric that fits the task.

    Args:
        name: What the report calls it.
        compute: Predictions and references to a number.
        higher_is_better: False for errors.
        percent: Whether it is a share.
        trials: Whether it is the share of rows that are right, each an independent trial.
        reads_tags: Whether it takes names of tags rather than their ids.
    """

    name: str
    compute: Callable[[Any, Any], float]
    higher_is_better: bool = True
    percent: bool = False
    trials: bool = False
    reads_tags: bool = True


@dataclass(frozen=True)
class Quality:
    """One model's quality on the rows; the fields are those of `Entry`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    agreement: float | None = None
    p_value: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


def choose_metric(metric: Any, *, task: str) -> ChosenMetric:
    """Find a metric, and check that it fits.

    Args:
        metric: Name in `METRICS`; an `evaluate.EvaluationModule`; or a function of predictions and references, whose
            value is taken as better where it is higher.
        task: Name of the task.

    Returns:
        The metric.

    Raises:
        ShrinkError: If it is unknown, or does not fit the task.
    """
    check_readable(task)
    if is_evaluation_module(metric):
        return ChosenMetric(metric.name, lambda found, wanted: _one_number(metric, found, wanted))
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)  # partial objects have no name
        return ChosenMetric(name, lambda found, wanted: _number(metric(found, wanted), name))
    method = METRICS[metric]
    facts = method.facts
    if task not in facts["tasks"]:
        fitting = [name for name, other in METRICS.items() if task in other.facts["tasks"]]
        raise ShrinkError(f"`metric` must fit the task {task!r}, got {metric!r}. Choose one of {fitting}.")
    return ChosenMetric(
        name=method.name,
        compute=method.function,
        higher_is_better=facts["higher_is_better"],
        percent=facts["percent"],
        trials=task in facts["trials"],
        reads_tags=method.name == "seqeval_f1",
    )


def as_compute_metrics(
    metric: Any, *, task: str, id2label: Mapping[int, str] | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make a metric into what `Trainer` takes as `compute_metrics`.

    Args:
        metric: Name in `METRICS`; an `evaluate.EvaluationModule`, all of whose numbers are kept; or a function of an
            `EvalPrediction` as `Trainer` takes it, which comes back unchanged.
        task: Name of the task; it says how logits become predictions.
        id2label: Tag of each id, where the metric reads tags.

    Returns:
        A function of an `EvalPrediction`.

    Raises:
        ShrinkError: If the metric is unknown or does not fit the task.
    """
    module = is_evaluation_module(metric)
    if callable(metric) and not module:
        return metric
    chosen = choose_metric(metric, task=task)
    if chosen.name == "seqeval_f1" and id2label is None:
        raise ShrinkError(
            "`id2label` must be given for 'seqeval_f1', which reads tags. Write compute_metrics="
            "as_compute_metrics('seqeval_f1', task='token_classification', id2label=model.config.id2label)."
        )

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        logits = logits[0] if isinstance(logits, tuple) else logits
        labels = torch.from_numpy(np.asarray(prediction.label_ids))
        names = id2label if chosen.reads_tags else None
        read = read_logits(torch.from_numpy(np.asarray(logits)), labels, task, names)
        if module:
            return _numbers(metric, read.predictions, read.references)
        return {chosen.name: float(chosen.compute(read.predictions, read.references))}

    return compute_metrics


def assess(metric: ChosenMetric, predictions: Sequence[Predictions]) -> list[Quality]:
    """Score models on the same rows, each against the first.

    Args:
        metric: The metric.
        predictions: K models' predictions, the original's first.

    Returns:
        K qualities; the first has no comparison.
    """
    if metric.trials:
        return _assess_trials(predictions)
    values = [_finite(metric.compute(p.predictions, p.references)) for p in predictions]

    def statistic(index: np.ndarray) -> list[float]:
        drawn = [p.take(index) for p in predictions]
        return _with_differences([metric.compute(d.predictions, d.references) for d in drawn])

    fast = metric.name in METRICS and isinstance(predictions[0].references, np.ndarray)
    intervals = bootstrap(statistic, len(predictions[0]), resamples=RESAMPLES if fast else SLOW_RESAMPLES)
    return _qualities(values, intervals, predictions)


def interval_name(metric: ChosenMetric) -> str:
    """What the report calls the metric's interval.

    Args:
        metric: The metric.

    Returns:
        Such as "Wilson 95 %".
    """
    return "Wilson 95 %" if metric.trials else "bootstrap 95 %"


def is_evaluation_module(metric: Any) -> bool:
    """Whether a metric comes from Hugging Face `evaluate`.

    Args:
        metric: Anything.

    Returns:
        True for an `evaluate.EvaluationModule`.
    """
    if "evaluate" not in sys.modules:  # its objects exist only where it is loaded; the import takes a second
        return False
    from evaluate import EvaluationModule

    return isinstance(metric, EvaluationModule)


def _assess_trials(predictions: Sequence[Predictions]) -> list[Quality]:
    right = np.stack([p.right() for p in predictions])  # (K, N)
    rows = right.shape[1]
    shares = [float(share) for share in right.mean(axis=1)]
    drawn = bootstrap(lambda index: _with_differences(right[:, index].mean(axis=1)), rows)
    intervals: list[tuple[float, float] | None] = [wilson(int(r.sum()), rows) for r in right]
    p_values = [None, *(mcnemar(right[0], r) for r in right[1:])]
    return _qualities(shares, intervals + drawn[len(shares) :], predictions, p_values)


def _qualities(
    values: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None],
    predictions: Sequence[Predictions],
    p_values: Sequence[float | None] | None = None,
) -> list[Quality]:
    count = len(values)
    differences = [None, *intervals[count:]]
    qualities = []
    for i, value in enumerate(values):
        low, high = intervals[i] or (None, None)
        difference_low, difference_high = differences[i] or (None, None)
        qualities.append(
            Quality(
                value=value,
                low=low if value is not None else None,
                high=high if value is not None else None,
                agreement=agreement(predictions[0], predictions[i]) if i else None,
                p_value=p_values[i] if p_values is not None else None,
                difference_low=difference_low,
                difference_high=difference_high,
            )
        )
    return qualities


def _with_differences(values: Sequence[float] | np.ndarray) -> list[float]:
    return [*values, *(value - values[0] for value in values[1:])]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(module: Any, found: Any, wanted: Any) -> dict[str, float]:
    result = module.compute(predictions=found, references=wanted)
    return {key: float(value) for key, value in result.items() if isinstance(value, (int, float, np.number))}


def _one_number(module: Any, found: Any, wanted: Any) -> float:
    numbers = _numbers(module, found, wanted)
    if module.name in numbers or len(numbers) == 1:
        return numbers.get(module.name, next(iter(numbers.values())))
    raise ShrinkError(
        f"`metric` must give one number, but {module.name!r} gives {sorted(numbers)}. Give a function that picks one: "
        "lambda predictions, references: module.compute(predictions=predictions, references=references)['…']."
    )


def _number(value: Any, name: str) -> float:
    if not isinstance(value, (int, float, np.number)):
        raise ShrinkError(
            f"`metric` must return one number, but {name} returned {type(value).__name__}. Return a float."
        )
    return float(value)
