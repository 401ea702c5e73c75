"""The model that is trained to find out which rows are hard."""

import copy
from typing import Any

from datasets import Dataset
from torch import nn

from hf_shrink.dataset_distillation.dynamics_callback import check_scored_task
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import class_names, find_columns, inner_feature
from hf_shrink.inputs.labels import distinct_labels
from hf_shrink.inputs.models import load_model, model_name
from hf_shrink.inputs.rows import CLASSIFIERS
from hf_shrink.inputs.tasks import find_task

HEADLESS = ("feature_extraction", "masked_lm")  # what a checkpoint is that was not fine-tuned


def load_learner(
    model: Any, rows: Dataset, *, task: str | None, text_column: Any, label_column: str | None
) -> nn.Module:
    """Load a model that can learn the rows' labels.

    Args:
        model: An instance, which is copied, a folder or a Hub id.
        rows: Raw or tokenised rows.
        task: Name in `TASKS`; found from the model and, where a checkpoint has no head, from the labels.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.

    Returns:
        The model; a checkpoint without a head gets one, at random, if the rows have labels.

    Raises:
        ShrinkError: If it cannot be trained.
    """
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    loaded = load_model(model)
    if not isinstance(loaded, nn.Module):
        raise ShrinkError(f"`model` must be trainable, got the exported {model_name(model)}. Give the original.")
    if find_task(loaded) not in HEADLESS or task in HEADLESS:
        return loaded
    label = find_columns(rows, text_column=text_column, label_column=label_column).label
    if label is None:
        return loaded
    wanted = task or _task_of(rows, label)
    check_scored_task(wanted)
    return load_model(model, task=wanted, **(_head(rows, label, wanted) if wanted in CLASSIFIERS else {}))


def _task_of(rows: Dataset, label: str) -> str:
    kind, feature = _type(rows, label), rows.features[label]
    if inner_feature(feature) is feature:
        return "regression" if kind.startswith("float") else "single_label_classification"
    words = {"tokens", "words", "input_ids"} & set(rows.column_names)
    return "token_classification" if words and not kind.startswith("float") else "multi_label_classification"


def _head(rows: Dataset, label: str, task: str) -> dict[str, Any]:
    """Arguments of `from_pretrained`: how many classes, and what they are called."""
    problem = {"problem_type": task} if task == "multi_label_classification" else {}
    if _type(rows, label).startswith("float"):
        return {"num_labels": len(rows[0][label]), **problem}
    names = class_names(rows, label)
    if names is None:
        names = distinct_labels(rows, label)
    if not names or not isinstance(names[0], str):
        return {"num_labels": max(2, int(max(names, default=0)) + 1), **problem}
    ids = dict(enumerate(names))
    return {"num_labels": len(names), "id2label": ids, "label2id": {name: i for i, name in ids.items()}, **problem}


def _type(rows: Dataset, label: str) -> str:
    return str(getattr(inner_feature(rows.features[label]), "dtype", ""))
