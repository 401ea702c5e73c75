"""Values of a metric with their intervals, and what sets each model apart from the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.evaluation.chosen_metric import ChosenMetric
from hf_shrink.evaluation.decoding import Predictions
from hf_shrink.evaluation.intervals import RESAMPLES, bootstrap, mcnemar, wilson
from hf_shrink.evaluation.metrics import METRICS

FOREIGN_RESAMPLES = 200  # `evaluate` writes a file at every call, and nobody knows what a user's function does
Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """One model's quality; what is undefined is None.

    Args:
        value: The metric.
        interval: Its 95 % interval.
        difference: The 95 % interval of the value less the first model's.
        agreement: Share of decisions that equal the first model's.
        p_value: Exact McNemar test against the first model.
    """

    value: float | None
    interval: Interval | None
    difference: Interval | None
    agreement: float | None
    p_value: float | None


def score_all(metric: ChosenMetric, predictions: Sequence[Predictions]) -> list[Score]:
    """Score several models on the same rows.

    Args:
        metric: The metric.
        predictions: One a model, all of the same N rows; the first is the one that the others are held against.

    Returns:
        One score a model; the first has neither difference, agreement nor p-value.
    """
    values = [metric(p.predictions, p.references) for p in predictions]
    rows = len(predictions[0].references)
    draws = RESAMPLES if metric.name in METRICS else FOREIGN_RESAMPLES
    resampled = bootstrap(
        lambda index: _with_differences(_resample(metric, predictions, index)), rows, resamples=draws
    )
    intervals, differences = resampled[: len(values)], [None, *resampled[len(values) :]]
    rights = [p.correct for p in predictions]
    if metric.trials:
        intervals = [wilson(int(right.sum()), rows) for right in rights if right is not None]
    return [
        Score(
            value=value if np.isfinite(value) else None,
            interval=intervals[i] if np.isfinite(value) else None,
            difference=differences[i],
            agreement=_agreement(predictions[0], predictions[i]) if i else None,
            p_value=mcnemar(rights[0], rights[i]) if i and metric.trials else None,  # type: ignore[arg-type]
        )
        for i, value in enumerate(values)
    ]


def _resample(metric: ChosenMetric, predictions: Sequence[Predictions], index: NDArray[np.intp]) -> list[float]:
    if metric.trials:  # the mean of right and wrong is the metric, and a hundred times faster
        return [float(p.correct[index].mean()) for p in predictions if p.correct is not None]
    return [metric(_take(p.predictions, index), _take(p.references, index)) for p in predictions]


def _with_differences(values: list[float]) -> list[float]:
    return [*values, *(value - values[0] for value in values[1:])]


def _take(values: Any, index: NDArray[np.intp]) -> Any:
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]


def _agreement(first: Predictions, other: Predictions) -> float | None:
    if first.choices is None or other.choices is None or not first.choices.size:
        return None
    equal = first.choices == other.choices
    return float(equal.reshape(len(equal), -1).all(-1).mean())  # of label sets, the whole set
