"""Artifacts made and measured one after another, until one is good enough."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.inputs.models import load_model
from hf_shrink.quantization.accuracy_search import Candidate, Outcome, Trial, find_smallest
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.measured_drop import DropMeasure
from hf_shrink.quantization.sensitivity import SensitivityMap, measure_sensitivity
from hf_shrink.registry import Method


@dataclass(frozen=True)
class Attempt:
    """An artifact in a folder to work in.

    Args:
        method: How it was made.
        job: What was asked for, the folder and the modules in float among it.
        made: What the quantizer said.
        calibration: What `quantization.json` shall say of the rows that it read; empty for none.
    """

    method: Method
    job: Job
    made: Made
    calibration: Mapping[str, Any]


Make = Callable[[Method, tuple[str, ...]], Attempt]


def check_goal(max_drop: float | None, metric: Any, evaluation_dataset: Any) -> None:
    """Refuse a goal that is none, or that nothing can be measured by.

    Args:
        max_drop: What the user accepts.
        metric: What it is measured by.
        evaluation_dataset: And on which rows.

    Raises:
        ShrinkError: If the drop is out of range, or there are no rows.
    """
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise ShrinkError(f"`max_drop` must be at least 0, got {max_drop}. Write half a point of a share as 0.005.")
    if evaluation_dataset is None and (max_drop is not None or metric is not None):
        given = "max_drop" if max_drop is not None else "metric"
        raise ShrinkError(
            f"`evaluation_dataset` must be given with `{given}`, got None. Give some hundred rows that the model was "
            "not trained on."
        )


def keep_accuracy(
    methods: Sequence[Method],
    make: Make,
    job: Job,
    rows: Callable[[], Sequence[Mapping[str, Tensor]]],
    measure: DropMeasure,
    max_drop: float | None,
    sensitivity: SensitivityMap | None = None,
) -> tuple[Attempt, dict[str, Any]]:
    """Find the smallest artifact that keeps an accuracy; where none does, warn and take the best.

    Args:
        methods: The cheapest first.
        make: Makes an artifact of a method with modules in float.
        job: What was asked for; the modules that it names stay in float in any case.
        rows: Gives batches without labels to find the sensitive modules on.
        measure: What is measured, in the artifact's own runtime.
        max_drop: What is accepted; None measures the first method and accepts anything.
        sensitivity: A map made before, for the method that it is of; None measures one where it is needed.

    Returns:
        The attempt, and what `quantization.json` shall say of the search, as JSON values.
    """
    _check_steps(measure, max_drop)
    candidates = [_candidate(method, make, job, rows, measure, sensitivity) for method in methods]
    outcome = find_smallest(candidates, math.inf if max_drop is None else max_drop)
    if not outcome.met and max_drop is not None:
        warnings.warn(_reason(outcome, measure, max_drop), stacklevel=3)
    facts = {"metric": measure.metric, "asked": max_drop, "dataset": measure.dataset, "rows": measure.rows}
    found = outcome.to_dict()
    return outcome.best.artifact, {**facts, **found, "met": None if max_drop is None else outcome.met}


def _candidate(
    method: Method,
    make: Make,
    job: Job,
    rows: Callable[[], Sequence[Mapping[str, Tensor]]],
    measure: DropMeasure,
    sensitivity: SensitivityMap | None,
) -> Candidate:
    def order() -> list[str]:
        if "format" not in method.facts:  # a user's own function: nobody knows what its numbers are
            return []
        found: Mapping[str, float]
        if sensitivity is not None and sensitivity.method == method.name:
            found = sensitivity.divergences
        else:
            found = measure_sensitivity(job.model, method.facts["format"], rows(), job.task)
        return [name for name in found if name not in job.ignore]

    def trial(ignore: tuple[str, ...]) -> Trial:
        attempt = make(method, tuple(sorted({*job.ignore, *ignore})))
        job.step("measure")
        folder = attempt.job.folder
        return Trial(method.name, ignore, size_on_disk(folder), measure.drop(load_model(folder)), attempt)

    return Candidate(method.name, order, trial)


def _check_steps(measure: DropMeasure, max_drop: float | None) -> None:
    if max_drop and measure.is_share and max_drop * measure.rows < 1:
        warnings.warn(
            f"`max_drop` of {max_drop:g} is less than one of the {measure.rows} rows that it is measured on: not one "
            "may change. Give more rows.",
            stacklevel=4,
        )


def _reason(outcome: Outcome, measure: DropMeasure, max_drop: float) -> str:
    best = outcome.best
    return (
        f"`max_drop` of {max_drop:g} was not kept: of {len(outcome.trials)} artifacts the best, {best.method} with "
        f"{len(best.ignore)} more modules in float, loses {best.drop:.4g} by {measure.metric} on {measure.rows} rows "
        f"of {measure.dataset}. It is saved all the same; accept more, or choose a method with more bits."
    )
