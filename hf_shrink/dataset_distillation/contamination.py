"""Rows that stand in a test set as well: trained on, they would be marks for memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.embeddings import unit_rows
from hf_shrink.dataset_distillation.near_pairs import Pairs, best_partners, join_pairs
from hf_shrink.dataset_distillation.near_texts import NearTexts
from hf_shrink.dataset_distillation.near_vectors import NearVectors
from hf_shrink.dataset_distillation.row_texts import read_texts
from hf_shrink.dataset_distillation.shingles import shingle_sets
from hf_shrink.dataset_distillation.vectors import check_vectors
from hf_shrink.errors import ShrinkError

NEAR = 0.8  # of the runs of five characters: at 0.8 a word of a sentence is another, at 0.7 the question is
SEMANTIC = 0.98  # the same words in another order; at 0.95 sentences that two people wrote for the same thing
BLOCK = 50_000  # rows whose shingles are held at once


@dataclass(frozen=True)
class Contamination:
    """Rows of a dataset that stand in a test set.

    Args:
        exact: Shape (N,), True where the text is that of a test row, but for case, white space and Unicode's forms.
        near: Shape (N,), True where, beyond these, nearly all shingles are a test row's.
        semantic: Shape (N,), True where, beyond these, the embedding is nearly a test row's.
        twins: Shape (N,), the test row that is most alike, counted through all test sets in order; -1 where none is.
        similarity: Shape (N,), how alike: 1 where exact, else Jaccard similarity or cosine; 0 where no row is.
    """

    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]
    semantic: NDArray[np.bool_]
    twins: NDArray[np.int64]
    similarity: NDArray[np.float32]

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """Shape (N,), True at every row to drop."""
        return self.twins >= 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows of each kind; a row counts once."""
        return {kind: int(vars(self)[kind].sum()) for kind in ("exact", "near", "semantic")}


def find_contaminated(
    dataset: Dataset,
    exclude: Dataset | Iterable[Dataset] | Mapping[str, Dataset],
    *,
    text_columns: Sequence[str] = (),
    embeddings: Any = None,
    exclude_embeddings: Any = None,
    near_threshold: float = NEAR,
    semantic_threshold: float = SEMANTIC,
) -> Contamination:
    """Find the rows of a dataset that stand in a test set.

    No pair above the thresholds is missed.

    Args:
        dataset: N rows.
        exclude: A test set, or several, of M rows in all.
        text_columns: Columns with the text, in both; several are joined. May be empty where embeddings are given.
        embeddings: Shape (N, D), or None to compare texts alone.
        exclude_embeddings: Shape (M, D), by the same encoder, of the test rows in the order given.
        near_threshold: Least Jaccard similarity of the shingles of five characters, in (0, 1].
        semantic_threshold: Least cosine, in (0, 1].

    Returns:
        The rows, by kind.

    Raises:
        ShrinkError: If there is nothing to compare by, embeddings are given of one side only or are not of one width,
            a threshold is out of range, or no row would be left.
    """
    _check_thresholds(near_threshold=near_threshold, semantic_threshold=semantic_threshold)
    sets = named_sets(exclude)
    count = sum(len(rows) for rows in sets.values())
    vectors = _both_embeddings(embeddings, exclude_embeddings, len(dataset), count)
    if not text_columns and vectors is None:
        raise ShrinkError(
            "`text_columns` must name a column where no embeddings are given. Name the text, or encode both sides."
        )
    twins, similarity = np.full(len(dataset), -1), np.zeros(len(dataset), np.float32)
    kinds = {kind: np.zeros(len(dataset), bool) for kind in ("exact", "near", "semantic")}

    def note(kind: str, rows: NDArray[np.int64], others: NDArray[np.int64], alike: Any) -> None:
        kinds[kind][rows], twins[rows], similarity[rows] = True, others, alike

    if text_columns:
        texts = read_texts(dataset, text_columns)
        theirs = [text for name, rows in sets.items() for text in read_texts(rows, text_columns, name)]
        note("exact", *_exact(texts, theirs))
        note("near", *_near(texts, theirs, np.flatnonzero(twins < 0), near_threshold))
    if vectors is not None:
        near = NearVectors(vectors, semantic_threshold)
        rest = np.flatnonzero(twins < 0)
        note("semantic", *_best(near.pairs(rest, np.arange(len(dataset), len(vectors))), len(dataset)))
    if len(dataset) and (twins >= 0).all():
        raise ShrinkError(
            f"`exclude` must leave some rows, but all {len(dataset)} stand in it: "
            f"{ {kind: int(mask.sum()) for kind, mask in kinds.items()} }. Give the test set, not the training rows."
        )
    return Contamination(**kinds, twins=twins, similarity=similarity)


def _check_thresholds(**thresholds: float) -> None:
    for argument, threshold in thresholds.items():
        if not 0 < threshold <= 1:
            raise ShrinkError(f"`{argument}` must be in (0, 1], got {threshold}. 1 asks for equality.")


def named_sets(exclude: Any) -> dict[str, Dataset]:
    """The test sets, each by what the user calls it.

    Args:
        exclude: One, or several.

    Returns:
        Such as "exclude['test']" to its rows.

    Raises:
        ShrinkError: If one is no `Dataset`, or none holds a row.
    """
    if isinstance(exclude, Dataset):
        sets = {"exclude": exclude}
    elif isinstance(exclude, Mapping):
        sets = {f"exclude[{name!r}]": rows for name, rows in exclude.items()}
    elif isinstance(exclude, (list, tuple)):
        sets = {f"exclude[{number}]": rows for number, rows in enumerate(exclude)}
    else:
        sets = {"exclude": exclude}
    for name, rows in sets.items():
        if not isinstance(rows, Dataset):
            raise ShrinkError(f"`{name}` must be a Dataset, got {type(rows).__name__}. Load it with load_dataset().")
    if not sum(len(rows) for rows in sets.values()):
        raise ShrinkError("`exclude` must hold rows, got none. Leave it out where there is no test set.")
    return sets


def _both_embeddings(ours: Any, theirs: Any, rows: int, others: int) -> NDArray[np.float32] | None:
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        missing = "embeddings" if ours is None else "exclude_embeddings"
        raise ShrinkError(f"`{missing}` must be given too: an embedding is compared with another. Encode both sides.")
    ours = check_vectors(ours, "embeddings", rows)
    theirs = check_vectors(theirs, "exclude_embeddings", others)
    if ours.shape[1] != theirs.shape[1]:
        raise ShrinkError(
            f"`exclude_embeddings` must have {ours.shape[1]} dimensions as `embeddings` have, got {theirs.shape[1]}. "
            "Encode both with one encoder."
        )
    return np.concatenate([unit_rows(ours), unit_rows(theirs, "exclude_embeddings")])


def _exact(texts: Sequence[str], theirs: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    first: dict[str, int] = {}
    for place, text in enumerate(theirs):
        first.setdefault(text, place)
    twins = np.array([first.get(text, -1) for text in texts], dtype=np.int64)
    rows = np.flatnonzero(twins >= 0)
    return rows, twins[rows], 1.0


def _near(texts: Sequence[str], theirs: Sequence[str], rows: NDArray[np.int64], threshold: float) -> Pairs:
    found = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        near = NearTexts(shingle_sets([texts[row] for row in block] + list(theirs)), threshold)
        i, j, similarity = _best(near.pairs(np.arange(len(block)), np.arange(len(block), len(near))), len(block))
        found.append((block[i], j, similarity))
    return join_pairs(found)


def _best(pairs: Pairs, before: int) -> Pairs:
    """The most similar partner of each row; theirs are counted behind ours."""
    rows, others, similarity = best_partners(pairs)
    return rows, others - before, similarity
