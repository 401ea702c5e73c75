"""Which method chooses, which rows it chooses, and what was measured on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from hf_shrink.dataset_distillation.bake_off import BASELINE, FOLDS, METHODS, Arm, Trial, bake_off, winner
from hf_shrink.dataset_distillation.budget import Budget, rows_of_each, share_out
from hf_shrink.dataset_distillation.curve import CurvePoint, draw_curve
from hf_shrink.dataset_distillation.label_noise import LabelNoise, find_label_noise
from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.selection import Selection, select_rows
from hf_shrink.dataset_distillation.tokens import rows_within, select_within_tokens

logger = logging.get_logger(__name__)
AUTO = "auto"
LEAST_NOISE = 0.02  # estimated share of wrong labels from which on `auto` tries to do without them


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Args:
        budget: How much to keep.
        given: Rows of the dataset as it came.
        method: Name in `SELECTORS`, "auto", or a callable.
        options: Keyword arguments of the selector.
        label_noise: True cuts rows whose label is likely wrong, False does not, "auto" leaves it to the bake-off.
        curve: Whether to measure the curve, and a method that is named against a stratified sample.
        lengths: Shape (N,), tokens of each row of the pool, under a budget of tokens.
    """

    budget: Budget
    given: int
    method: str | Callable[..., Any] = AUTO
    options: Mapping[str, Any] = field(default_factory=dict)
    label_noise: bool | str = AUTO
    curve: bool = True
    lengths: NDArray[np.int64] | None = None

    def counts(self, pool: Pool, lengths: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Rows to keep of each stratum.

        Args:
            pool: Rows to keep some of.
            lengths: Tokens of each; under a budget of tokens the counts are a guess.

        Returns:
            Shape (S,).
        """
        if self.budget.tokens is None or lengths is None:
            return rows_of_each(self.budget, self.given, pool.strata)
        return share_out(rows_within(pool.strata, lengths, self.budget.tokens), pool.strata.sizes)


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        arm: The method, and whether it was given all rows.
        selection: Rows of the pool.
        verdict: One sentence on why this method.
        noise: What was found of the labels, or None.
        trials: The bake-off, the stratified sample first.
        curve: Score against rows.
    """

    arm: Arm
    selection: Selection
    verdict: str
    noise: LabelNoise | None = None
    trials: tuple[Trial, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


def choose(pool: Pool, asked: Asked) -> Choice:
    """Find the method, and let it choose.

    Args:
        pool: Rows that may be kept.
        asked: What the user asked for.

    Returns:
        The choice.
    """
    counts = asked.counts(pool, asked.lengths)
    noise = _noise(pool, asked)
    arms = _arms(pool, asked, noise, int(counts.sum()))
    noisy = None if noise is None else noise.noisy
    trials: list[Trial] = []
    if measurable(pool) and counts.sum() < len(pool) and _compared(asked):
        trials = bake_off(pool, counts, arms, noisy=noisy, options=asked.options)
    arm = (winner(trials) if trials else Arm(BASELINE)) if asked.method == AUTO else arms[0]
    verdict = _verdict(asked, arm, trials, all_rows=bool(counts.sum() == len(pool)))
    curve: list[CurvePoint] = []
    if asked.curve and measurable(pool):
        curve = draw_curve(pool, int(counts.sum()), arm, noisy=noisy, options=asked.options)
    selection = _select(pool, asked, arm, noisy)
    return Choice(arm, selection, verdict, noise, tuple(trials), tuple(curve))


def measurable(pool: Pool) -> bool:
    """Whether a head can be trained on some of the rows and asked about others.

    Args:
        pool: The rows.

    Returns:
        True where there are embeddings, and labels that are not all alike.
    """
    strata = pool.strata
    told = (
        len(strata.names) > 1 if strata.kind != "labels" else bool(strata.labels is not None and strata.labels.any())
    )
    return pool.embeddings is not None and strata.kind != "none" and told and len(pool) >= 2 * FOLDS


def _compared(asked: Asked) -> bool:
    """Whether what chooses is held against a stratified sample, and not that sample itself."""
    return asked.method == AUTO or (asked.curve and (asked.method != BASELINE or asked.label_noise is True))


def _noise(pool: Pool, asked: Asked) -> LabelNoise | None:
    wanted = asked.label_noise is True or (asked.label_noise == AUTO and asked.method == AUTO)
    if not wanted:
        return None
    if pool.strata.kind == "classes" and measurable(pool):
        assert pool.embeddings is not None  # noqa: S101
        return find_label_noise(pool.embeddings, pool.strata.ids, seed=pool.seed)
    return None


def _arms(pool: Pool, asked: Asked, noise: LabelNoise | None, total: int) -> list[Arm]:
    if asked.method != AUTO:
        return [Arm(asked.method, cut_noise=noise is not None)]
    methods = [m for m in METHODS if m != "ccs" or pool.strata.kind == "classes"]
    arms = [Arm(method) for method in methods]
    clean = 0 if noise is None else int((~noise.noisy).sum())
    if noise is not None and noise.rate >= LEAST_NOISE and clean >= total:
        arms += [Arm(method, cut_noise=True) for method in (BASELINE, *methods)]
    return arms


def _select(pool: Pool, asked: Asked, arm: Arm, noisy: NDArray[np.bool_] | None) -> Selection:
    rows = np.flatnonzero(~noisy) if arm.cut_noise and noisy is not None else np.arange(len(pool))
    part, options = pool.only(rows), asked.options if arm.method != BASELINE or asked.method == BASELINE else {}
    lengths = None if asked.lengths is None else asked.lengths[rows]
    if lengths is not None and asked.budget.tokens is not None:
        picks = select_within_tokens(part, lengths, asked.budget.tokens, arm.method, options)
    else:
        picks = select_rows(part, asked.counts(part, None), arm.method, options)
    return Selection(rows[picks.rows], picks.weights, picks.clusters)


def _verdict(asked: Asked, arm: Arm, trials: list[Trial], *, all_rows: bool) -> str:
    if all_rows:
        return "All rows are kept."
    if not trials:
        return (
            "There was nothing to measure a method by, so that it is a sample by lot."
            if asked.method == AUTO
            else "It was not held against a stratified sample."
        )
    chosen = next(trial for trial in trials if trial.arm == arm)
    points = f"{100 * abs(chosen.gain):.1f} points"
    if asked.method == AUTO:
        if chosen is trials[0]:
            return "No method tried beat a stratified sample on held-out rows, so that it is one."
        return f"It beat a stratified sample by {points} on held-out rows (at least {100 * chosen.least_gain:.1f})."
    if chosen.gain < 0 and chosen.arm.method not in (BASELINE, "random"):
        logger.warning(
            f"{arm.name} scored {points} less than a stratified sample of as many rows on held-out rows. "
            'method="auto" takes the sample where nothing beats it.'
        )
    return f"It scored {points} {'more' if chosen.gain >= 0 else 'less'} than a stratified sample on held-out rows."
