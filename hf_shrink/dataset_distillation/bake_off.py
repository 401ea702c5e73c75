"""`method="auto"`: selectors are tried against a stratified sample on held-out rows, and must win to be used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_shrink.dataset_distillation.folds import deal
from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.proxy import head_score
from hf_shrink.dataset_distillation.selection import select_rows

BASELINE = "stratified"
METHODS = ("kmeans", "facility_location", "herding", "ccs")  # k_center and the hardest rows lost nearly everywhere
FOLDS = 5
SAMPLES = 3  # stratified samples a fold: a single one at 1 % of the rows scatters by more than most gains
LEVEL = 0.9  # one-sided confidence that a gain is one
LEAST_GAIN = 0.003  # of the held-out score; below it a plain sample is as good, and easier to trust
MOST_ROWS = 20_000  # that the bake-off looks at


@dataclass(frozen=True)
class Arm:
    """A way to choose rows.

    Args:
        method: Name in `SELECTORS`, or a callable.
        cut_noise: Whether rows whose label is likely wrong are left out first.
    """

    method: str | Callable[..., Any]
    cut_noise: bool = False

    @property
    def name(self) -> str:
        """What a report calls it."""
        name = self.method if isinstance(self.method, str) else getattr(self.method, "__name__", "own method")
        return f"{name}, label noise cut" if self.cut_noise else name


@dataclass(frozen=True)
class Trial:
    """What an arm scored on the held-out rows of each fold.

    Args:
        arm: The arm.
        scores: Shape (F,), one a fold.
        gain: Mean over the folds of its score less the baseline's.
        least_gain: What the gain is at least, with the confidence of `LEVEL`.
    """

    arm: Arm
    scores: NDArray[np.float64]
    gain: float = 0.0
    least_gain: float = 0.0

    @property
    def score(self) -> float:
        """Mean over the folds."""
        return float(self.scores.mean())


def bake_off(
    pool: Pool,
    counts: NDArray[np.int64],
    arms: Sequence[Arm],
    *,
    noisy: NDArray[np.bool_] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Try arms against a stratified sample of as many rows.

    Each fold's rows are held out in turn: the arms choose among the others, a linear head learns what they chose, and
    is asked about the rows held out. The differences of the folds are judged by the corrected resampled t-test (Nadeau
    & Bengio, 2003): folds share training rows, and the plain test would find gains that are none.

    Args:
        pool: The rows; their strata are not of kind "none".
        counts: Shape (S,), rows to keep of each stratum of the whole pool.
        arms: What to try.
        noisy: Shape (N,), rows whose label is likely wrong, for arms that cut them.
        options: Keyword arguments of the selectors.

    Returns:
        The trials, the baseline's first.
    """
    rows = _some_rows(pool)
    share = len(rows) / len(pool)
    counts = np.maximum(np.round(counts * share), 1).astype(np.int64) if share < 1 else counts
    fold = deal(pool.strata.ids[rows], FOLDS, pool.seed)
    folds = [(rows[fold != k], rows[fold == k]) for k in range(FOLDS)]
    baseline = np.array(
        [np.mean([try_arm(pool, counts, Arm(BASELINE), *f, sample=s) for s in range(SAMPLES)]) for f in folds]
    )
    trials = [Trial(Arm(BASELINE), baseline)]
    for arm in tqdm(arms, desc="Trying methods", leave=False):
        scores = np.array([try_arm(pool, counts, arm, *f, noisy=noisy, options=options) for f in folds])
        gains = scores - baseline
        trials.append(Trial(arm, scores, float(gains.mean()), float(gains.mean() - half_width(gains, LEVEL))))
    return trials


def winner(trials: Sequence[Trial]) -> Arm:
    """The arm to use.

    Args:
        trials: What `bake_off` returned.

    Returns:
        The arm of the highest score among those that beat the baseline; the baseline where none does.
    """
    won = [t for t in trials if t.least_gain > 0 and t.gain >= LEAST_GAIN]
    return max(won, key=lambda trial: trial.score).arm if won else trials[0].arm


def try_arm(
    pool: Pool,
    counts: NDArray[np.int64],
    arm: Arm,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    noisy: NDArray[np.bool_] | None = None,
    options: Mapping[str, Any] | None = None,
    sample: int = 0,
) -> float:
    """What a head scores that learns the rows an arm chooses.

    Args:
        pool: The rows.
        counts: Shape (S,), rows to keep of each stratum of the whole pool.
        arm: What chooses.
        train: Rows to choose from.
        test: Rows held out.
        noisy: As in `bake_off`.
        options: Keyword arguments of the selector.
        sample: Number of the draw, for arms that are tried several times.

    Returns:
        The score of `head_score`.
    """
    if arm.cut_noise and noisy is not None:
        train = train[~noisy[train]]
    part = pool.only(train, seed=pool.seed + sample)
    there = np.unique(pool.strata.ids[train])
    wanted = np.minimum(counts[there], part.strata.sizes)  # a fold leaves fewer rows of a class than there are
    picks = select_rows(part, wanted, arm.method, {} if arm.method == BASELINE else options)
    assert pool.embeddings is not None  # noqa: S101
    return head_score(pool.embeddings, pool.strata, train[picks.rows], test)


def half_width(values: NDArray[np.float64], level: float) -> float:
    """One-sided half width of the mean of what cross-validation gave (Nadeau & Bengio, 2003).

    Args:
        values: One a fold.
        level: Confidence, in (0.5, 1).

    Returns:
        The half width; 0 where all values are alike.
    """
    from scipy.stats import t

    folds = len(values)
    spread = values.std(ddof=1) * np.sqrt(1 / folds + 1 / (folds - 1))
    return float(t.ppf(level, folds - 1) * spread)


def _some_rows(pool: Pool) -> NDArray[np.int64]:
    if len(pool) <= MOST_ROWS:
        return np.arange(len(pool))
    order = np.random.default_rng([pool.seed, MOST_ROWS]).permutation(len(pool))
    order = order[np.argsort(pool.strata.ids[order], kind="stable")]
    every = len(pool) / MOST_ROWS
    return np.sort(order[np.floor(np.arange(MOST_ROWS) * every).astype(np.int64)])
