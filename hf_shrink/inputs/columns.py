"""Which columns of a dataset hold the text and the label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, Image, LargeList, List, Value

from hf_shrink.errors import ShrinkError

USUAL_TEXTS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "context"),
    ("text",),
    ("sentence",),
    ("question",),
    ("document",),
    ("article",),
    ("content",),
    ("review",),
    ("utterance",),
    ("tokens",),
    ("words",),
    ("image",),
    ("img",),
)
FIRST_LABELS = ("label", "labels")
OTHER_LABELS = ("ner_tags", "tags", "answers", "answer", "summary", "target", "score")
TOKENIZED = ("input_ids", "pixel_values", "input_features", "input_values", "inputs_embeds")


@dataclass(frozen=True)
class Columns:
    """The columns that matter.

    Args:
        text: What the processing class reads: one column (text, words or images), two for pairs, none where the rows
            are tokenised already.
        label: The label's column, or None.
    """

    text: tuple[str, ...]
    label: str | None


def find_columns(
    dataset: Dataset,
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    needs_label: bool = False,
    with_label: bool = True,
) -> Columns:
    """Find text and label by feature type and usual names.

    Args:
        dataset: The rows.
        text_column: The text's column, or two for pairs, where they are known.
        label_column: The label's column where it is known.
        needs_label: Whether a missing label is an error.
        with_label: Whether to look for a label that is not named.

    Returns:
        The columns.

    Raises:
        ShrinkError: If a named column is missing, or nothing or several things fit.
    """
    named = (text_column,) if isinstance(text_column, str) else tuple(text_column or ())
    for argument, column in [("text_column", c) for c in named] + [("label_column", label_column)]:
        if column is not None:
            check_column(dataset, column, argument)
    label = label_column
    if label is None and (with_label or needs_label):
        label = _find_label(dataset, named)
    if label is None and needs_label:
        raise ShrinkError(
            f"`label_column` must be given, because none of {dataset.column_names} is a ClassLabel or bears a usual "
            f"name ({', '.join(FIRST_LABELS)}, …). Name the column that holds the labels."
        )
    if named or set(TOKENIZED) & set(dataset.column_names):
        return Columns(named, label)
    return Columns(_find_text(dataset, label), label)


def check_column(dataset: Dataset, column: str, argument: str) -> None:
    """Refuse a column that does not exist.

    Args:
        dataset: The rows.
        column: The column's name.
        argument: What the user calls it.

    Raises:
        ShrinkError: If the dataset lacks it.
    """
    if column not in dataset.column_names:
        raise ShrinkError(f"`{argument}` must be one of {dataset.column_names}, got {column!r}. Choose one of these.")


def class_names(dataset: Dataset, column: str) -> list[str] | None:
    """Names of a label column's classes.

    Args:
        dataset: The rows.
        column: A column of class ids, or of lists of them.

    Returns:
        The names in the order of the ids, or None where the column carries none.
    """
    feature = inner_feature(dataset.features[column])
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def inner_feature(feature: Any) -> Any:
    """What a list holds, however deep; anything else is its own."""
    while isinstance(feature, (List, LargeList)):
        feature = feature.feature
    return feature


def _find_label(dataset: Dataset, taken: Sequence[str]) -> str | None:
    columns = [column for column in dataset.column_names if column not in taken]
    typed = [c for c in columns if isinstance(inner_feature(dataset.features[c]), ClassLabel)]
    for candidates in (_named(columns, FIRST_LABELS), typed, _named(columns, OTHER_LABELS)):
        if len(candidates) > 1:
            raise ShrinkError(f"`label_column` must be given, because several fit: {candidates}. Choose one of these.")
        if candidates:
            return candidates[0]
    return None


def _named(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    return [column for column in columns if column in names]


def _find_text(dataset: Dataset, label: str | None) -> tuple[str, ...]:
    candidates = [c for c, feature in dataset.features.items() if c != label and _is_readable(feature)]
    usual = [group for group in USUAL_TEXTS if set(group) <= set(candidates)]
    usual = [group for group in usual if not any(set(group) < set(other) for other in usual)]
    found = usual or [(column,) for column in candidates]
    if not found:
        raise ShrinkError(
            f"`text_column` must be given, because none of {dataset.column_names} holds text. "
            "Name the column, or give rows that are tokenised already."
        )
    if len(found) > 1:
        raise ShrinkError(
            f"`text_column` must be given, because several fit: {[list(g) if len(g) > 1 else g[0] for g in found]}. "
            "Choose one of these."
        )
    return found[0]


def _is_readable(feature: object) -> bool:
    if isinstance(feature, List):
        feature = feature.feature
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("string", "large_string"))
