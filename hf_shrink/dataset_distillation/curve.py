"""How good a model gets on how many rows, measured with a linear head on rows held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_shrink.dataset_distillation.bake_off import BASELINE, Arm, half_width, try_arm
from hf_shrink.dataset_distillation.budget import share_out
from hf_shrink.dataset_distillation.folds import deal
from hf_shrink.dataset_distillation.pool import Pool

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
FOLDS = 3  # a curve of seven points is for reading; the choice of the method rests on more
LEVEL = 0.975  # one-sided, so that both sides together make 95 %


@dataclass(frozen=True)
class CurvePoint:
    """One budget.

    Args:
        rows: Rows kept, of all rows given.
        score: Mean over the folds of a head that learns the rows chosen.
        half_width: Of its interval.
        stratified: The same of a stratified sample of as many rows.
        stratified_half_width: Of its interval.
    """

    rows: int
    score: float
    half_width: float
    stratified: float
    stratified_half_width: float


def draw_curve(
    pool: Pool,
    total: int,
    arm: Arm,
    *,
    noisy: NDArray[np.bool_] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[CurvePoint]:
    """Measure the curve of accuracy against budget.

    Args:
        pool: The rows; their strata are not of kind "none".
        total: The budget asked for, which is one of the points.
        arm: What chooses the rows.
        noisy: Rows whose label is likely wrong, for an arm that cuts them.
        options: Keyword arguments of the selector.

    Returns:
        Points by rising budget; the last one is of all rows, where both arms are the same.
    """
    rows = np.arange(len(pool))
    fold = deal(pool.strata.ids, FOLDS, pool.seed)
    folds = [(rows[fold != k], rows[fold == k]) for k in range(FOLDS)]
    budgets = {total, *(round(share * len(pool)) for share in SHARES)}
    points = []
    asked = sorted(b for b in budgets if len(pool.strata.names) <= b <= max(total, max(SHARES) * len(pool)))
    for budget in tqdm(asked, desc="Measuring budgets", leave=False):
        counts = share_out(budget, pool.strata.sizes)
        chosen = np.array([try_arm(pool, counts, arm, *f, noisy=noisy, options=options) for f in folds])
        plain = np.array([try_arm(pool, counts, Arm(BASELINE), *f) for f in folds])
        points.append(_point(budget, chosen, plain))
    if total < len(pool):
        full = np.array([try_arm(pool, pool.strata.sizes, Arm(BASELINE), *f) for f in folds])
        points.append(_point(len(pool), full, full))
    return points


def smallest_budget(curve: list[CurvePoint], share: float) -> int | None:
    """The fewest rows measured that are nearly as good as all.

    Args:
        curve: What `draw_curve` returned.
        share: Of the score of all rows that is to be reached, in (0, 1].

    Returns:
        The rows, or None where fewer than all never reached it.
    """
    reached = [point.rows for point in curve[:-1] if point.score >= share * curve[-1].score]
    return min(reached, default=None)


def _point(rows: int, chosen: NDArray[np.float64], plain: NDArray[np.float64]) -> CurvePoint:
    return CurvePoint(
        rows, float(chosen.mean()), half_width(chosen, LEVEL), float(plain.mean()), half_width(plain, LEVEL)
    )
