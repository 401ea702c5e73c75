"""Which rows stay and which of them stand for the others: each removed row is near the very one that stands for it."""

import itertools
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.near_pairs import Near, Pairs, best_partners, join_pairs

BLOCK = 2048  # rows that are compared with those kept at once
Keep = Literal["first", "central"]


def find_stand_ins(
    near: Near, keep: Keep, weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Keep a row unless one that is kept is near it.

    Groups of rows that hang together pair by pair would do away with rows that are unlike the one kept: a chain of
    small changes leads from anything to anything. Here a row goes only where one that stays is near it.

    Args:
        near: What finds the pairs.
        keep: Who comes first: "first" goes by position; "central" by how much lies near a row, so that what stays is
            the middle of its neighbourhood.
        weights: Shape (N,), how many rows each stands for already.

    Returns:
        For each row that goes, of those kept before it the most alike, and how alike the two are; itself and 1 for a
        row that stays.
    """
    everyone = np.arange(len(near))
    order = everyone if keep == "first" else _most_central(near, weights)
    rank = np.empty(len(near), np.int64)
    rank[order] = everyone
    stand_ins, similarity = everyone.copy(), np.ones(len(near))
    stays = np.zeros(len(near), dtype=bool)
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        before, within = near.pairs(rows, np.flatnonzero(stays)), near.pairs(rows, rows)
        stays[_leaders(rows, before, within, rank)] = True
        i, j, alike = join_pairs([before, within])
        named = ~stays[i] & stays[j] & (rank[j] < rank[i])
        i, j, alike = best_partners((i[named], j[named], alike[named]))
        stand_ins[i], similarity[i] = j, alike
    return stand_ins, similarity


def _most_central(near: Near, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows by the similarity that they have in all to those near them."""
    everyone, total = np.arange(len(near)), weights.astype(np.float64)  # copies are at a similarity of 1
    for start in range(0, len(near), BLOCK // 8):  # where all rows are alike, each has N partners
        i, j, similarity = near.pairs(everyone[start : start + BLOCK // 8], everyone)
        total += np.bincount(i, weights=similarity * weights[j], minlength=len(near))
    return np.lexsort((everyone, -np.round(total, 6)))


def _leaders(rows: NDArray[np.int64], before: Pairs, within: Pairs, rank: NDArray[np.int64]) -> list[int]:
    """Of some rows those that no row stands for, neither one that was kept before nor an earlier one of them."""
    gone = set(before[0].tolist())
    i, j, _ = within
    earlier = rank[j] < rank[i]
    order = np.argsort(rank[i[earlier]], kind="stable")
    i, j = i[earlier][order], j[earlier][order]
    bounds = np.flatnonzero(np.diff(i, prepend=-1, append=-1))
    for start, end in itertools.pairwise(bounds.tolist()):
        if not gone.issuperset(j[start:end].tolist()):
            gone.add(int(i[start]))
    return [row for row in rows.tolist() if row not in gone]
