"""A budget of tokens: as many rows as fit, and never one more."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.budget import share_out
from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.selection import Selection, select_rows
from hf_shrink.dataset_distillation.strata import Strata
from hf_shrink.errors import ShrinkError

TRIES = 5  # how often the number of rows is guessed again, since picks may be longer or shorter than rows are
ROOM = 0.01  # share of the budget that may stay unused before it is filled up


def count_tokens(dataset: Dataset, columns: Sequence[str], processing_class: Any = None) -> NDArray[np.int64]:
    """Count the tokens of each row.

    Args:
        dataset: Tokenised rows, or texts.
        columns: The texts' columns, one or two; unused for tokenised rows.
        processing_class: Tokenizer for texts.

    Returns:
        Shape (N,), special tokens included.

    Raises:
        ShrinkError: If texts come without a tokenizer.
    """
    if "input_ids" in dataset.column_names:
        return np.array([len(ids) for ids in dataset.with_format(None)["input_ids"]], dtype=np.int64)
    if processing_class is None:
        raise ShrinkError(
            "`processing_class` must be given for a budget of tokens, to count them, got None. Give the tokenizer of "
            "the model that will be trained."
        )
    texts = [dataset.with_format(None)[column][:] for column in columns]
    words = {"is_split_into_words": True} if isinstance(texts[0][0], list) else {}
    return np.array([len(ids) for ids in processing_class(*texts, truncation=False, **words)["input_ids"]])


def select_within_tokens(
    pool: Pool,
    lengths: NDArray[np.int64],
    limit: int,
    method: str | Callable[..., Any],
    options: Mapping[str, Any] | None = None,
) -> Selection:
    """Pick rows whose tokens fill a budget.

    Args:
        pool: What to pick from.
        lengths: Shape (N,), tokens of each row.
        limit: Tokens that the picks may have together.
        method: Name in `SELECTORS`, or a callable.
        options: Keyword arguments of the selector.

    Returns:
        The picks, each stratum among them. What the picks leave free is filled with rows by lot, whose cluster is -1.
    """
    count = rows_within(pool.strata, lengths, limit)
    for _ in range(TRIES):
        picks = select_rows(pool, share_out(count, pool.strata.sizes), method, options)
        used = int(lengths[picks.rows].sum())
        again = int(np.clip(np.ceil(count * limit / used), len(pool.strata.names), len(pool)))
        if limit <= used <= (1 + 2 * ROOM) * limit or again == count:
            break
        count = again
    fitting, left = _those_that_fit(picks, pool, lengths, limit)
    return _use_up(_fill_up(fitting, pool, lengths, left, limit), pool, lengths, limit)


def rows_within(strata: Strata, lengths: NDArray[np.int64], limit: int) -> int:
    """Guess the rows that a budget of tokens holds.

    Args:
        strata: Of the rows.
        lengths: Shape (N,), tokens of each row.
        limit: The budget.

    Returns:
        Their number, at least one for each stratum.

    Raises:
        ShrinkError: If the budget is above all tokens, or below the shortest row of each class together.
    """
    shortest = [int(lengths[strata.ids == i].min()) for i in range(len(strata.names))]
    if not sum(shortest) <= limit <= lengths.sum():
        each = f"the shortest row of each of the {len(shortest)} classes" if len(shortest) > 1 else "the shortest row"
        raise ShrinkError(
            f"`budget` must be in [{sum(shortest)}, {lengths.sum()}] tokens ({each}; all rows), got {limit}. Write "
            'tokens as {"tokens": 2_000_000}.'
        )
    return int(np.clip(round(limit / lengths.mean()), len(shortest), len(lengths)))


def _those_that_fit(picks: Selection, pool: Pool, lengths: NDArray[np.int64], limit: int) -> tuple[Selection, int]:
    """Picks in their order, as long as each stratum without one keeps room for its shortest row."""
    ids = pool.strata.ids
    by_length = np.lexsort((lengths, ids))
    shortest = dict(zip(*(part.tolist() for part in _firsts(ids, by_length)), strict=True))
    missing = {stratum: int(lengths[row]) for stratum, row in shortest.items()}
    left, reserved, kept = limit, sum(missing.values()), []
    for place, row in enumerate(picks.rows.tolist()):
        own = missing.get(stratum := int(ids[row]), 0)
        if lengths[row] <= left - reserved + own:
            kept.append(place)
            left -= int(lengths[row])
            reserved -= missing.pop(stratum, 0)
    fitting = picks.only(np.array(kept, dtype=np.int64))
    return _with_others(fitting, [shortest[stratum] for stratum in missing]), left - reserved


def _firsts(ids: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    strata, places = np.unique(ids[order], return_index=True)
    return strata, order[places]


def _fill_up(picks: Selection, pool: Pool, lengths: NDArray[np.int64], left: int, limit: int) -> Selection:
    if left <= ROOM * limit:
        return picks
    order = np.random.default_rng([pool.seed, limit]).permutation(len(pool))
    more = []
    for row in order[~np.isin(order, picks.rows)].tolist():
        if lengths[row] <= left:
            more.append(row)
            left -= int(lengths[row])
    return _with_others(picks, more)


def _use_up(picks: Selection, pool: Pool, lengths: NDArray[np.int64], limit: int) -> Selection:
    """Where no row fits into what is left, the last picks give way to longer rows of their stratum."""
    rows, left = picks.rows.copy(), limit - int(lengths[picks.rows].sum())
    for place in range(len(rows) - 1, -1, -1):
        if left <= ROOM * limit:
            break
        longer = np.flatnonzero(
            (pool.strata.ids == pool.strata.ids[rows[place]]) & ~np.isin(np.arange(len(pool)), rows)
        )
        gains = lengths[longer] - lengths[rows[place]]
        if len(longer := longer[(gains > 0) & (gains <= left)]):
            longest = longer[np.argmax(lengths[longer])]
            left -= int(lengths[longest] - lengths[rows[place]])
            rows[place] = longest
    return Selection(rows, picks.weights, picks.clusters)


def _with_others(picks: Selection, rows: list[int]) -> Selection:
    more = np.array(rows, dtype=np.int64)
    clusters = picks.clusters
    return Selection(
        np.concatenate([picks.rows, more]),
        np.concatenate([picks.weights, np.ones(len(more), dtype=np.float32)]),
        None if clusters is None else np.concatenate([clusters, np.full(len(more), -1, dtype=np.int32)]),
    )
