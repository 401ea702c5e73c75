"""What is told of a choice: the steps, what was measured, what it cost."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from hf_shrink.dataset_distillation.bake_off import BASELINE
from hf_shrink.dataset_distillation.choice import Asked, Choice
from hf_shrink.dataset_distillation.coverage import class_drift, measure_coverage
from hf_shrink.dataset_distillation.curve import smallest_budget
from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.preparation import FITTED, PIXELS, Encoding, Prepared
from hf_shrink.dataset_distillation.proxy import TITLES
from hf_shrink.dataset_distillation.report import DatasetReport, Stage, TrialScore
from hf_shrink.dataset_distillation.selection import Selection, select_rows
from hf_shrink.dataset_distillation.selectors import SELECTORS

logger = logging.get_logger(__name__)
TRAINING = 9  # forward passes that three epochs of training cost for each row, at two for a backward pass
SHARES = (0.95, 0.99)
LIBRARIES = ("hf_shrink", "datasets", "scikit-learn", "numpy")


def report_choice(
    source: str,
    given: int,
    rows: Dataset,
    pool: Pool,
    prepared: Prepared,
    asked: Asked,
    choice: Choice,
    encoding: Encoding,
    seconds: float,
) -> DatasetReport:
    """Write down how rows were chosen.

    Args:
        source: Name of the dataset.
        given: Rows that it had.
        rows: Those that were looked at.
        pool: Those that were left to choose from.
        prepared: What went before.
        asked: What the user asked for.
        choice: What was chosen.
        encoding: How rows were encoded.
        seconds: What choosing took.

    Returns:
        The report.
    """
    picks, stages = choice.selection, [*prepared.stages]
    if choice.arm.cut_noise and choice.noise is not None:
        cut = int(choice.noise.noisy.sum())
        details = {"estimated share of wrong labels": choice.noise.rate}
        stages.append(Stage("labels that are likely wrong", len(pool), len(pool) - cut, details))
    stages.append(Stage("chosen", stages[-1].after, len(picks)))
    name = choice.arm.method if isinstance(choice.arm.method, str) else choice.arm.name
    report = DatasetReport(
        source=source,
        rows_before=given,
        rows=len(picks),
        budget=str(asked.budget),
        method=asked.method if isinstance(asked.method, str) else choice.arm.name,
        selector=name,
        options=_json_options(asked.options),
        seed=pool.seed,
        paper=SELECTORS[name].paper if name in SELECTORS else None,
        verdict=choice.verdict,
        stages=tuple(stages),
        metric=TITLES[pool.strata.kind] if choice.trials or choice.curve else "",
        trials=tuple(TrialScore(t.arm.name, t.score, t.gain, t.least_gain) for t in choice.trials),
        curve=choice.curve,
        rows_for={str(share): smallest_budget(list(choice.curve), share) for share in SHARES if choice.curve},
        tokens=None if asked.lengths is None else int(asked.lengths[picks.rows].sum()),
        encoder=None if pool.embeddings is None else encoding.title(rows),
        encode_seconds=prepared.encode_seconds,
        select_seconds=seconds,
        versions={library: version(library) for library in LIBRARIES},
    )
    return _with_cost(_with_cover(report, pool, picks), encoding, rows)


def _with_cover(report: DatasetReport, pool: Pool, picks: Selection) -> DatasetReport:
    drift = class_drift(pool.strata.ids, pool.strata.ids[picks.rows]) if len(pool.strata.names) > 1 else None
    if pool.embeddings is None:
        return replace(report, drift=drift)
    counts = np.bincount(pool.strata.ids[picks.rows], minlength=len(pool.strata.names))
    plain = select_rows(pool, counts, BASELINE)
    return replace(
        report,
        drift=drift,
        coverage=measure_coverage(pool.embeddings, picks.rows),
        stratified_coverage=measure_coverage(pool.embeddings, plain.rows),
    )


def _with_cost(report: DatasetReport, encoding: Encoding, rows: Dataset) -> DatasetReport:
    if report.encode_seconds is None or encoding.title(rows) in (FITTED, PIXELS) or report.rows == report.rows_before:
        return report
    saved = TRAINING * report.encode_seconds * (1 - report.rows / report.rows_before)
    ratio = (report.encode_seconds + report.select_seconds) / saved
    if ratio > 1:
        logger.warning(
            f"Choosing rows took {ratio:.1f} times what three epochs of a model as large as the encoder save on "
            'fewer rows. curve=False or a method by name is faster, method="stratified" costs nothing.'
        )
    return replace(report, cost_ratio=ratio)


def _json_options(options: Mapping[str, Any]) -> dict[str, Any]:
    plain = str | int | float | bool | None
    return {name: value if isinstance(value, plain) else repr(value) for name, value in options.items()}
