"""Labels of a dataset and classes of a model: the same order, and none out of range."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, LargeList, List
from transformers import PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import check_column, class_names, inner_feature
from hf_shrink.inputs.encoding import IGNORED, SOFT_LABEL


def check_labels(dataset: Dataset, column: str, num_labels: int) -> None:
    """Refuse labels that the model has no output for: on a GPU they end in a crash that names no cause.

    Args:
        dataset: The rows.
        column: Class ids; lists of ids, one a token; lists of floats in [0, 1], one a class; or, for a regression,
            floats.
        num_labels: Outputs of the model.

    Raises:
        ShrinkError: If the column is missing or empty in some row, or a label is out of range; -100 is not.
    """
    check_column(dataset, column, "label_column")
    values = dataset.select_columns(column).with_format("arrow")[:][column].combine_chunks()
    if values.null_count:
        raise ShrinkError(
            f"`label_column` must be filled in every row, but {values.null_count} of {column!r} are empty. Drop them."
        )
    if _is_list(values.type) and pa.types.is_floating(values.type.value_type):
        _check_multi_hot(values, column, num_labels)
    elif _is_list(values.type) or not pa.types.is_floating(values.type):
        _check_ids(_flatten(values), column, num_labels)
    else:
        _check_targets(values, column, num_labels)


def align_labels(dataset: Dataset, column: str, config: PretrainedConfig) -> Dataset:
    """Number a dataset's classes as the model does, by name.

    Args:
        dataset: The rows.
        column: Class ids whose feature carries the names, or the names themselves; or lists of either.
        config: The model's config, with `id2label`.

    Returns:
        The rows, with ids (and the scores of a `soft_label`) in the model's order. They come back unchanged where the
        order is the same, or where one side has no names (plain integers, `LABEL_0`, …).

    Raises:
        ShrinkError: If the model lacks some of the names: a metric over unrelated classes would look like a bad model.
    """
    check_column(dataset, column, "label_column")
    feature = inner_feature(dataset.features[column])
    written_out = getattr(feature, "dtype", None) in ("string", "large_string")
    names = distinct_labels(dataset, column) if written_out else class_names(dataset, column)
    wanted = [str(name) for _, name in sorted((int(i), name) for i, name in dict(config.id2label or {}).items())]
    if names is None or (not written_out and (names == wanted or is_generic(wanted) or is_generic(names))):
        return dataset
    ids = _match(names, wanted)
    if missing := sorted(set(names) - set(ids)):
        raise ShrinkError(
            f"`label_column` must hold the model's classes, but the model does not know {len(missing)} of the "
            f"{len(names)} in {column!r}: {missing[:5]}. It knows {wanted[:5]}{' …' if len(wanted) > 5 else ''}. "
            "Rename the dataset's classes or set the model's `config.id2label`, or choose a model of this task."
        )
    key_to_id = ids if written_out else {i: ids[name] for i, name in enumerate(names)}
    if SOFT_LABEL in dataset.column_names:
        dataset = _reorder_scores(dataset, [ids[name] for name in names], len(wanted))
    features = dataset.features.copy()
    features[column] = _relist(features[column], ClassLabel(names=wanted))
    return dataset.map(
        _remap,
        batched=True,
        input_columns=[column],
        fn_kwargs={"column": column, "ids": key_to_id},
        features=features,
        desc="Aligning labels",
    )


def distinct_labels(dataset: Dataset, column: str) -> list[Any]:
    """The labels that occur.

    Args:
        dataset: The rows.
        column: Labels, or lists of them.

    Returns:
        Each once, in ascending order.
    """
    values = _flatten(dataset.select_columns(column).with_format("arrow")[:][column].combine_chunks())
    return sorted(value for value in pc.unique(values).to_pylist() if value is not None)


def class_order(dataset: Dataset, column: str, config: PretrainedConfig) -> list[int] | None:
    """Where each of a dataset's classes stands in a model's scores, by name.

    Args:
        dataset: The rows.
        column: Class ids whose feature carries the names, or the names themselves; or lists of either.
        config: The model's config, with `id2label`.

    Returns:
        One position a class, in the order of the ids (names that are written out: in alphabetical order, as
        `class_encode_column` numbers them); None where it is the same, or where one side has no names.

    Raises:
        ShrinkError: If the two have not the same classes.
    """
    feature = inner_feature(dataset.features[column])
    written_out = getattr(feature, "dtype", None) in ("string", "large_string")
    names = distinct_labels(dataset, column) if written_out else class_names(dataset, column)
    wanted = [str(name) for _, name in sorted((int(i), name) for i, name in dict(config.id2label or {}).items())]
    if names is None:
        return None
    ids = _match(names, wanted)
    named = not is_generic(wanted) and not is_generic(names)
    if len(names) != len(wanted) or (named and not set(names) <= set(ids)):
        raise ShrinkError(
            f"`teacher` must have the {len(names)} classes of {column!r}, got {len(wanted)}: {wanted[:5]}"
            f"{' …' if len(wanted) > 5 else ''} in place of {names[:5]}{' …' if len(names) > 5 else ''}. Choose a "
            "teacher of this task, or give it the dataset's `id2label`."
        )
    order = [ids[name] for name in names] if named else list(range(len(names)))
    return None if order == list(range(len(names))) else order


def is_generic(names: list[str]) -> bool:
    """Whether nobody chose these names: `LABEL_0`, … or plain numbers in order."""
    return names in ([f"LABEL_{i}" for i in range(len(names))], [str(i) for i in range(len(names))])


def _match(names: list[str], wanted: list[str]) -> dict[str, int]:
    ids = {name: i for i, name in enumerate(wanted)}
    folded = {name.casefold(): i for name, i in ids.items()}
    if set(names) <= set(ids) or len(folded) < len(ids):
        return ids
    return {name: folded[name.casefold()] for name in names if name.casefold() in folded}


def _remap(values: list[Any], column: str, ids: dict[Any, int]) -> dict[str, list[Any]]:
    def new(value: Any) -> Any:
        return [new(item) for item in value] if isinstance(value, list) else ids.get(value, value)

    return {column: [new(value) for value in values]}


def _reorder_scores(dataset: Dataset, ids: list[int], count: int) -> Dataset:
    """Put the scores of soft labels where the classes are put; a soft label has one for each."""
    if sorted(ids) != list(range(count)):
        raise ShrinkError(
            f"`{SOFT_LABEL}` must have a score for each of the model's {count} classes, but the dataset has {len(ids)}"
            " of them. Attach soft labels of a teacher that has them all, or remove the column."
        )
    places = [ids.index(i) for i in range(count)]

    def moved(rows: list[list[float]]) -> dict[str, list[list[float]]]:
        return {SOFT_LABEL: [[row[place] for place in places] for row in rows]}

    return dataset.map(moved, batched=True, input_columns=[SOFT_LABEL], features=dataset.features, desc="Aligning")


def _relist(feature: Any, inner: ClassLabel) -> Any:
    return type(feature)(_relist(feature.feature, inner)) if isinstance(feature, (List, LargeList)) else inner


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _flatten(values: pa.Array) -> pa.Array:
    while _is_list(values.type):
        values = values.flatten()
    return values


def _check_multi_hot(values: pa.Array, column: str, num_labels: int) -> None:
    lengths = set(pc.unique(pc.list_value_length(values)).to_pylist())
    if lengths - {num_labels}:
        raise ShrinkError(
            f"`label_column` must hold {num_labels} values a row (the model's classes), got {sorted(lengths)} in "
            f"{column!r}. Load the model with the right num_labels."
        )
    flat = _flatten(values)
    inside = pc.and_(pc.greater_equal(flat, 0), pc.less_equal(flat, 1))  # false for NaN
    inside = pc.or_(inside, pc.equal(flat, IGNORED))
    if not pc.all(inside, min_count=0).as_py():
        raise ShrinkError(f"`label_column` must hold shares in [0, 1], but {column!r} has others. Scale them first.")


def _check_targets(values: pa.Array, column: str, num_labels: int) -> None:
    if num_labels > 1:
        raise ShrinkError(
            f"`label_column` must hold class ids in [0, {num_labels}) (the model's classes), but {column!r} holds "
            f"{values.type} numbers. Cast it to integers, or load a regression model (num_labels=1)."
        )
    if not pc.all(pc.is_finite(values), min_count=0).as_py():
        raise ShrinkError(
            f"`label_column` must hold finite numbers, but {column!r} has NaN or infinity. Drop these rows."
        )


def _check_ids(values: pa.Array, column: str, num_labels: int) -> None:
    if not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise ShrinkError(
            f"`label_column` must hold class ids, but {column!r} holds {values.type}. "
            "Turn names into ids with dataset.class_encode_column()."
        )
    if num_labels == 1:
        return  # whole numbers are targets of a regression
    values = values.cast(pa.int64())
    outside = pc.or_(pc.greater_equal(values, num_labels), pc.less(values, 0))
    outside = pc.and_(outside, pc.not_equal(values, IGNORED))
    if wrong := pc.unique(values.filter(outside)).to_pylist():
        raise ShrinkError(
            f"`label_column` must hold class ids in [0, {num_labels}) (the model's classes), got {sorted(wrong)[:5]} "
            f"in {column!r}. Number the classes from 0, drop these rows, or load the model with the right num_labels."
        )
