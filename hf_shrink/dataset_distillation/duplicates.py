"""Rows that say again what another row says: found, and left out."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset, Value
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.duplicate_report import Duplicates, pick_examples
from hf_shrink.dataset_distillation.duplicate_stream import deduplicate_stream
from hf_shrink.dataset_distillation.embeddings import check_embeddings
from hf_shrink.dataset_distillation.row_texts import digests, read_texts
from hf_shrink.dataset_distillation.stand_ins import Keep, find_stand_ins
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import find_columns, load_rows
from hf_shrink.inputs.columns import FIRST_LABELS, check_column, inner_feature


def deduplicate(
    dataset: Any,
    method: str = "jaccard",
    threshold: float = 0.9,
    *,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    embeddings: Any = None,
    encoder: Any = None,
    keep: Keep = "first",
    seed: int = 0,
    **options: Any,
) -> Any:
    """Leave out rows that say again what another row says.

    Every row that is left out is near one that stays. Where their labels differ, a warning says how often.

    Args:
        dataset: A `Dataset`, or a path or Hub id. A stream (`IterableDataset`) is taken by "exact" alone, which keeps
            16 bytes of each row in mind; it comes back as a stream.
        method: Name in `DUPLICATE_METHODS`: "exact", "jaccard" (near texts, none missed), "minhash" (near texts among
            millions, the extra `scale`) or "semantic" (near embeddings).
        threshold: Least similarity of two duplicates, in (0, 1].
        split: Where the dataset has several.
        text_column: The text's column, or several, which are compared as a whole; found where it is None.
        label_column: The column whose labels must not contradict each other; the usual ones where it is None.
        embeddings: Shape (N, D), for "semantic".
        encoder: What makes them where they are not given: see `encode`.
        keep: Who stays: the "first" of the rows, or the most "central" of a neighbourhood.
        seed: Of what is random in a method.
        **options: Of the method.

    Returns:
        The rows that stay, in their order, with all columns.
    """
    if isinstance(dataset, IterableDataset):
        return deduplicate_stream(dataset, method, text_column=text_column, label_column=label_column)
    rows = load_rows(dataset, split)
    found = find_duplicates(
        rows,
        method,
        threshold,
        text_column=text_column,
        label_column=label_column,
        embeddings=embeddings,
        encoder=encoder,
        keep=keep,
        seed=seed,
        **options,
    )
    return drop_duplicates(rows, found)


def drop_duplicates(dataset: Dataset, found: Duplicates) -> Dataset:
    """Leave out what was found.

    Args:
        dataset: The rows that were searched.
        found: The duplicates among them.

    Returns:
        The rows that stay; its `info.description` says what was done.
    """
    small = dataset.select(found.kept).flatten_indices()
    small.info.description = "\n".join(part for part in (dataset.info.description, found.sentence) if part)
    return small


def find_duplicates(
    dataset: Any,
    method: str = "jaccard",
    threshold: float = 0.9,
    *,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    embeddings: Any = None,
    encoder: Any = None,
    keep: Keep = "first",
    seed: int = 0,
    **options: Any,
) -> Duplicates:
    """Find rows that say again what another row says.

    Args:
        dataset: A `Dataset`, or a path or Hub id.
        method: Name in `DUPLICATE_METHODS`.
        threshold: Least similarity of two duplicates, in (0, 1].
        split: Where the dataset has several.
        text_column: The text's column, or several; found where it is None.
        label_column: The column whose labels must not contradict each other; the usual ones where it is None.
        embeddings: Shape (N, D), for "semantic".
        encoder: What makes them where they are not given.
        keep: "first" or "central".
        seed: Of what is random in a method.
        **options: Of the method.

    Returns:
        Which rows stay, and which of them stands for each of the others.

    Raises:
        ShrinkError: If the method is unknown or lacks what it reads, an argument is out of range, or there are no rows
            or no text in them.
    """
    chosen = DUPLICATE_METHODS[method]
    _check(chosen.options, threshold, keep, options, embeddings is not None, chosen.facts["reads"])
    rows = load_rows(dataset, split)
    if not len(rows):
        raise ShrinkError("`dataset` must hold rows, got none. Check the split and any filter before it.")
    labels = _label_columns(rows, label_column)
    if "seed" in chosen.options:
        options["seed"] = seed
    if chosen.facts["reads"] == "embeddings":
        columns = [name for name, feature in rows.features.items() if _is_text(inner_feature(feature))]
        groups = np.arange(len(rows))
        given: Any = _vectors(rows, embeddings, encoder, text_column, seed)
    else:
        columns = list(_text_columns(rows, text_column))
        given, groups = _distinct_texts(rows, columns)
    near = chosen.function(given, threshold, **options)
    return _describe(rows, near, groups, keep, labels, columns, method, threshold)


def _describe(
    rows: Dataset,
    near: Any,
    groups: NDArray[np.int64],
    keep: Keep,
    labels: Sequence[str],
    columns: Sequence[str],
    method: str,
    threshold: float,
) -> Duplicates:
    """Rows of equal text are one to a method; here each gets its own place again."""
    distinct, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    stand_ins, similarity = find_stand_ins(near, keep, sizes)
    stands_for = first[stand_ins[groups]]
    removed = np.flatnonzero(stands_for != np.arange(len(rows)))
    kept, alike = stands_for[removed], np.where(stand_ins == distinct, 1.0, similarity)[groups[removed]]
    contradicting = _contradicting(rows, labels, removed, kept)
    if contradicting.any():
        warnings.warn(
            f"{int(contradicting.sum())} of {len(removed)} duplicates bear another label than the row that stands for "
            "them. Look at them (find_duplicates(…).contradicting): one of the two labels is wrong.",
            stacklevel=3,
        )
    return Duplicates(
        method=method,
        threshold=threshold,
        kept=np.setdiff1d(np.arange(len(rows)), removed),
        removed=removed,
        stand_ins=kept,
        similarity=alike,
        contradicting=contradicting,
        examples=pick_examples(rows, columns, removed, kept, alike),
    )


def _check(known: Any, threshold: float, keep: str, options: dict[str, Any], has_embeddings: bool, reads: str) -> None:
    if not 0 < threshold <= 1:
        raise ShrinkError(f"`threshold` must be in (0, 1], got {threshold}. 0.9 is usual; 1 asks for equality.")
    if keep not in ("first", "central"):
        raise ShrinkError(f'`keep` must be "first" or "central", got {keep!r}. Choose one of these.')
    if unknown := sorted(set(options) - set(known)):
        raise ShrinkError(
            f"`{unknown[0]}` must be an option of the method, which has {sorted(known)}. Leave it out, or "
            "choose another method."
        )
    if has_embeddings and reads != "embeddings":
        raise ShrinkError('`embeddings` must be left out where texts are compared. Take method="semantic" for them.')


def _label_columns(rows: Dataset, label_column: str | None) -> list[str]:
    if label_column is not None:
        check_column(rows, label_column, "label_column")
        return [label_column]
    features = rows.features
    return [c for c in features if c in FIRST_LABELS or isinstance(inner_feature(features[c]), ClassLabel)]


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _text_columns(rows: Dataset, text_column: str | Sequence[str] | None) -> tuple[str, ...]:
    columns = find_columns(rows, text_column=text_column, with_label=False).text
    if not columns:
        raise ShrinkError(
            f"`text_column` must be given, because the rows are tokenised already: {rows.column_names}. Name a column "
            'of text, or take method="semantic" with embeddings.'
        )
    return columns


def _distinct_texts(rows: Dataset, columns: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Each text once, in the order of first sight, and which of them a row holds."""
    texts = read_texts(rows, columns)
    if not any(texts):
        raise ShrinkError(
            f"`text_column` must hold text, but {list(columns)} is empty in all {len(rows)} rows. Name another column."
        )
    _, first, groups = np.unique(digests(texts), return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return [texts[row] for row in first[order]], place[groups]


def _vectors(rows: Dataset, embeddings: Any, encoder: Any, text_column: Any, seed: int) -> NDArray[np.float32]:
    if embeddings is None:
        from hf_shrink.dataset_distillation.encoder import encode

        embeddings = encode(rows, encoder, text_column=text_column, seed=seed)
    return check_embeddings(embeddings, len(rows))


def _contradicting(
    rows: Dataset, labels: Sequence[str], removed: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which removed rows bear another label than the row that stands for them."""
    different = np.zeros(len(removed), dtype=bool)
    for column in labels:
        values = rows.with_format("arrow").select_columns(column)
        pairs = zip(_cells(values, removed), _cells(values, kept), strict=True)
        different |= np.array([a != b for a, b in pairs], dtype=bool)
    return different


def _cells(values: Dataset, rows: NDArray[np.int64]) -> list[Any]:
    return values.select(rows)[:].column(0).to_pylist() if len(rows) else []
