"""A selector at work: in each stratum under its share, and all picks in one order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.candidates import Picks
from hf_shrink.dataset_distillation.pool import Pool, in_strata
from hf_shrink.dataset_distillation.selectors import SELECTORS
from hf_shrink.errors import ShrinkError


@dataclass(frozen=True)
class Selection:
    """Rows of a pool, the most valuable first; every beginning of it holds the strata in proportion.

    Args:
        rows: Shape (K,), their positions.
        weights: Shape (K,), float32, how many rows of the pool each stands for, against the mean of all.
        clusters: Shape (K,), int32, or None.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32]
    clusters: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: NDArray[np.int64]) -> "Selection":
        """A part of the picks.

        Args:
            kept: Their positions in this selection.

        Returns:
            The part, in the order given.
        """
        clusters = None if self.clusters is None else self.clusters[kept]
        return Selection(self.rows[kept], self.weights[kept], clusters)


def select_rows(
    pool: Pool,
    counts: NDArray[np.int64],
    method: str | Callable[..., Any],
    options: Mapping[str, Any] | None = None,
) -> Selection:
    """Pick rows.

    Args:
        pool: What to pick from.
        counts: Shape (S,), rows to keep of each stratum.
        method: Name in `SELECTORS`, or a callable that works as they do.
        options: Keyword arguments of the selector.

    Returns:
        As many rows as the counts sum to.
    """
    select = SELECTORS.resolve(method)
    parts, offset = [], 0
    for stratum, members, count in _groups(pool, counts, separate=in_strata(method)):
        generator = np.random.default_rng([pool.seed, stratum])
        picks = select(pool.candidates(method, members), int(count), generator, **(options or {}))
        _check(picks, int(count), len(members), method)
        weights = picks.weights if picks.weights is not None else np.full(count, len(members) / count)
        clusters = None if picks.clusters is None else picks.clusters + offset
        offset += 0 if picks.clusters is None else int(picks.clusters.max()) + 1
        place = (np.arange(count) + 0.5) / count  # the n-th of every stratum before the next of any
        parts.append((members[picks.rows], weights, clusters, place))
    order = np.argsort(np.concatenate([place for *_, place in parts]), kind="stable")
    joined = np.concatenate([weights for _, weights, *_ in parts])[order]
    known = [clusters for _, _, clusters, _ in parts if clusters is not None]
    return Selection(
        np.concatenate([rows for rows, *_ in parts])[order],
        (joined / joined.mean()).astype(np.float32),
        np.concatenate(known)[order].astype(np.int32) if known else None,
    )


def _groups(pool: Pool, counts: NDArray[np.int64], *, separate: bool) -> list[tuple[int, NDArray[np.int64], np.int64]]:
    if not separate:
        return [(0, np.arange(len(pool)), counts.sum())]
    members = np.split(np.argsort(pool.strata.ids, kind="stable"), np.cumsum(pool.strata.sizes)[:-1])
    return [(i, rows, count) for i, (rows, count) in enumerate(zip(members, counts, strict=True)) if count]


def _check(picks: Any, count: int, size: int, method: Any) -> None:
    rows = picks.rows if isinstance(picks, Picks) else None
    if rows is None or len(np.unique(rows)) != count or len(rows) != count or rows.min() < 0 or rows.max() >= size:
        raise ShrinkError(
            f"`method` must return Picks of {count} different rows of {size}, got something else from {method!r}. "
            "See hf_shrink.dataset_distillation.selectors for what a selector does."
        )
