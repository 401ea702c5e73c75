"""The metric that a user named, gave as a function, or as a module of the evaluate library."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.metrics import METRICS


@dataclass(frozen=True)
class ChosenMetric:
    """A metric, ready to be called.

    Args:
        name: What reports call it.
        function: Predictions and references to a number.
        higher_is_better: False for errors.
        percent: Whether it is a share that is printed in percent.
        trials: Whether it is the share of rows that are right, each row one independent trial.
    """

    name: str
    function: Callable[[Any, Any], float]
    higher_is_better: bool
    percent: bool
    trials: bool

    def __call__(self, predictions: Any, references: Any) -> float:
        """Compute the metric.

        Args:
            predictions: What `predict` makes of a model's outputs.
            references: The same kind.

        Returns:
            Its value; NaN where it is undefined.
        """
        return float(self.function(predictions, references))

    def check(self, references: Any) -> None:
        """Try the metric on perfect predictions, before any model runs.

        Args:
            references: The rows' labels.

        Raises:
            ShrinkError: If the metric cannot read them, or gives no number.
        """
        try:
            value = self.function(references, references)
        except ShrinkError:
            raise
        except Exception as error:  # a user's own function may raise anything
            raise ShrinkError(
                f"`metric` {self.name!r} must take the predictions and references of these rows, but raised "
                f"{type(error).__name__}: {error}. Mend it, or choose one of {sorted(METRICS)}."
            ) from error
        if not isinstance(value, Real):
            raise ShrinkError(
                f"`metric` {self.name!r} must give a number, got {type(value).__name__}. Return one value as a float."
            )


def choose_metric(
    metric: Any, task: str, *, num_labels: int | None = None, higher_is_better: bool | None = None
) -> ChosenMetric:
    """Make a metric ready, or refuse it.

    Args:
        metric: Name in `METRICS`, a function of predictions and references, or an `evaluate.EvaluationModule`.
        task: Name in `TASKS`; it must be one that the metric can read.
        num_labels: Classes of the model. "f1" means "f1_macro" for more than two of them, whichever occur in the rows.
        higher_is_better: Of a metric that is not ours; None takes it to be True.

    Returns:
        The metric.

    Raises:
        ShrinkError: If it is unknown, or does not fit the task.
    """
    if isinstance(metric, str):
        return _registered("f1_macro" if metric == "f1" and (num_labels or 0) > 2 else metric, task)
    better = True if higher_is_better is None else higher_is_better
    if callable(metric):
        name = metric.__name__ if inspect.isroutine(metric) else type(metric).__name__
        return ChosenMetric(name, metric, better, percent=False, trials=False)
    from evaluate import EvaluationModule

    if not isinstance(metric, EvaluationModule):
        raise ShrinkError(
            f"`metric` must be a name, a function or an evaluate.EvaluationModule, got {type(metric).__name__}. "
            f"Choose one of {sorted(METRICS)}."
        )
    return ChosenMetric(metric.name, _from_module(metric), better, percent=False, trials=False)


def _registered(name: str, task: str) -> ChosenMetric:
    method = METRICS[name]
    if task not in method.facts["tasks"]:
        fitting = [other for other in METRICS if task in METRICS[other].facts["tasks"]]
        raise ShrinkError(
            f"`metric` must fit the task {task!r}, got {name!r}. Choose one of {fitting}, or give a function."
        )
    facts: Mapping[str, Any] = method.facts
    trials = task in facts["trials"]
    return ChosenMetric(name, method.function, facts["higher_is_better"], facts["percent"], trials)


def _from_module(module: Any) -> Callable[[Any, Any], float]:
    def compute(predictions: Any, references: Any) -> float:
        results = module.compute(predictions=predictions, references=references)
        if len(results) == 1:
            return next(iter(results.values()))
        if module.name not in results:
            raise ShrinkError(
                f"`metric` must give one number, but {module.name!r} gives {sorted(results)}. "
                "Give a function that calls it and returns the one you want."
            )
        return results[module.name]

    return compute
