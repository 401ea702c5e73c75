"""A transfer set: rows without labels, from which a student learns by its teacher alone."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from datasets import Dataset, LargeList, List, Value, concatenate_datasets
from torch import nn

from hf_shrink.distillation.teacher import config_of
from hf_shrink.distillation.views import view_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import FIRST_LABELS, TOKENIZED, find_columns, inner_feature
from hf_shrink.inputs.datasets import dataset_name, load_rows
from hf_shrink.inputs.encoding import IGNORED
from hf_shrink.inputs.rows import MODEL_INPUTS, tokenize_rows
from hf_shrink.inputs.tasks import find_task

LABELS = "labels"
TEXT_IS_LABEL = "the text itself is the label, so that no row is without one. Add these rows to the training rows"
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "regression": "every number is a target there, so that none can stand for a missing one. Leave these rows out",
        "question_answering": "a row is cut around its answer, and one without an answer otherwise. Give these rows "
        "answers that the teacher found",
        "causal_lm": TEXT_IS_LABEL,
        "masked_lm": TEXT_IS_LABEL,
        "seq2seq_lm": "a teacher is asked about a target text. Let it generate one, and give that as the label",
    }
)


def with_unlabelled(
    dataset: Dataset,
    transfer_dataset: Any,
    model: nn.Module,
    *,
    transfer_split: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
    task: str | None = None,
) -> Dataset:
    """Add rows without labels to training rows (the transfer set of Hinton et al., 2015).

    They get the label -100, which losses leave out, so that the student hears its teacher alone there: with the weight
    `alpha`, as in the other rows. Without a teacher they would teach nothing.

    Args:
        dataset: Raw or tokenised training rows.
        transfer_dataset: Raw or tokenised rows of the same kind, or a path or Hub id; their labels are dropped.
        model: Student or teacher; it tells what a label looks like.
        transfer_split: Of the transfer dataset, where it has several.
        processing_class: Tokenizer, processor or image processor; may be None for tokenised rows.
        text_column: The text's column, or two for pairs; found where it is None or the transfer dataset lacks
            it.
        label_column: The label's column; found where it is None.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's own limit.
        task: Name in `TASKS`; found from the model if None.

    Returns:
        The model's inputs, and "labels" if the training rows have labels; the training rows come first.

    Raises:
        ShrinkError: If the task has no sign for a missing label, or the rows do not fit to each other.
    """
    task = find_task(model, task)
    view = view_of(task, config_of(model, "model"), pooling="mean", hide_padding=False)
    if reason := REFUSED.get("regression" if view.outputs == "values" else task):
        name = dataset_name(transfer_dataset)
        raise ShrinkError(f"`transfer_dataset` must be None for {task}, got {name}: {reason}.")
    settings: dict[str, Any] = {"task": task, "max_length": max_length}
    columns: dict[str, Any] = {"text_column": text_column, "label_column": label_column}
    rows = tokenize_rows(dataset, processing_class, **columns, **settings)
    raw = load_rows(transfer_dataset, transfer_split).with_format(None)
    raw = raw.remove_columns([column for column in raw.column_names if column in (label_column, *FIRST_LABELS)])
    text = _inputs(raw, text_column)
    return _joined(rows, tokenize_rows(raw.select_columns(text), processing_class, text_column=text, **settings), task)


def _inputs(raw: Dataset, text_column: str | Sequence[str] | None) -> list[str]:
    """Columns that a model or its tokenizer reads."""
    if set(TOKENIZED) & set(raw.column_names):
        return [column for column in raw.column_names if column in MODEL_INPUTS]
    named = (text_column,) if isinstance(text_column, str) else tuple(text_column or ())
    there = named if set(named) <= set(raw.column_names) else None
    return list(find_columns(raw, text_column=there, with_label=False).text)


def _joined(rows: Dataset, unlabelled: Dataset, task: str) -> Dataset:
    plain, more = rows.with_format(None), unlabelled.with_format(None)
    inputs = [column for column in rows.column_names if column != LABELS]
    if missing := sorted(set(inputs) - set(more.column_names)):
        raise ShrinkError(
            f"`transfer_dataset` must have the inputs of the training rows, but lacks {missing} and has "
            f"{more.column_names}. Rename its column, or prepare both in the same way."
        )
    more = more.select_columns(inputs)
    if LABELS in rows.column_names:
        floating = str(getattr(inner_feature(plain.features[LABELS]), "dtype", "")).startswith("float")
        kind: Any = Value("float32" if floating else "int64")  # class names have no room for -100
        kind = List(kind) if isinstance(plain.features[LABELS], (List, LargeList)) else kind
        plain = plain.cast_column(LABELS, kind)
        more = more.add_column(LABELS, _ignored(plain, more, task), feature=kind)  # type: ignore[arg-type]
    joined = concatenate_datasets([plain, more.select_columns(plain.column_names).cast(plain.features)])
    if rows.format["type"] != "custom":
        return joined
    return joined.with_transform(rows.format["format_kwargs"]["transform"])  # images are prepared as they are read


def _ignored(labelled: Dataset, unlabelled: Dataset, task: str) -> list[Any]:
    """-100 in the shape of a label, for each row."""
    if task == "token_classification":
        return [[IGNORED] * len(ids) for ids in unlabelled["input_ids"]]
    label: Any = [IGNORED] * len(labelled[0][LABELS]) if isinstance(labelled.features[LABELS], List) else IGNORED
    return [label] * len(unlabelled)
