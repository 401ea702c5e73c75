import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import align_labels, check_labels
from tests.models import tiny_bert_classifier

NAMES = ["card", "cash", "pin"]


def column(values, feature=None):
    return Dataset.from_dict({"label": values}, features=None if feature is None else Features(label=feature))


def config(names=NAMES):
    settings = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return tiny_bert_classifier(len(names), num_hidden_layers=1, **settings).config


@pytest.mark.parametrize(
    "data",
    [
        column([0, 1, 2, -100]),
        column([0, 2], ClassLabel(names=NAMES)),
        column([[0, 2, -100], []]),
        column([[0.0, 1.0, 0.5]]),
        column([True, False]),
        column(np.arange(3).tolist(), Value("int8")),
    ],
    ids=["ids", "classes", "words", "multi-hot", "booleans", "small integers"],
)
def test_labels_in_range_pass(data):
    check_labels(data, "label", 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (column([0, 3, 1]), r"must hold class ids in \[0, 3\) .*, got \[3\] in 'label'"),
        (column([0, -1]), r"got \[-1\]"),
        (column([[0, 1], [4, 7, 4]]), r"got \[4, 7\]"),
        (column([0, None]), "filled in every row, but 1 of 'label' are empty"),
        (column(["card"]), "must hold class ids, but 'label' holds string"),
        (column([0.0, 1.0]), "must hold class ids in .* but 'label' holds double"),
        (column([[0.0, 1.0]]), r"must hold 3 values a row .*, got \[2\]"),
        (column([[0.0, 1.0, 1.5]]), r"must hold shares in \[0, 1\]"),
        (column([[0.0, 1.0, float("nan")]]), r"must hold shares in \[0, 1\]"),
    ],
)
def test_labels_out_of_range_are_refused(data, message):
    with pytest.raises(ShrinkError, match=f"`label_column` .*{message}"):
        check_labels(data, "label", 3)


def test_only_the_selected_rows_count():
    data = column([0, 99, 1])
    check_labels(data.select([0, 2]), "label", 3)
    with pytest.raises(ShrinkError, match=r"got \[99\]"):
        check_labels(data.select([1, 0]).with_format("torch"), "label", 3)


def test_missing_label_column_is_refused():
    with pytest.raises(ShrinkError, match=r"`label_column` must be one of \['label'\], got 'labels'. Choose"):
        check_labels(column([0]), "labels", 3)


def test_regression_takes_any_finite_number():
    check_labels(column([0.3, -7.5]), "label", 1)
    check_labels(column([0, 12]), "label", 1)
    with pytest.raises(ShrinkError, match="finite numbers"):
        check_labels(column([0.3, float("nan")]), "label", 1)


def test_permuted_classes_are_numbered_as_the_model_does():
    data = column([0, 1, 2, 0, -1], ClassLabel(names=["pin", "card", "cash"]))
    aligned = align_labels(data, "label", config())
    assert aligned["label"][:] == [2, 0, 1, 2, -1]
    assert aligned.features["label"].names == NAMES


def test_loss_on_permuted_classes_is_unchanged():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    straight = [0, 1, 2, 2, 0]
    permuted = column(
        [["pin", "card", "cash"].index(NAMES[i]) for i in straight], ClassLabel(names=["pin", "card", "cash"])
    )
    aligned = torch.tensor(align_labels(permuted, "label", config())["label"][:])
    assert abs(F.cross_entropy(logits, aligned) - F.cross_entropy(logits, torch.tensor(straight))) < 1e-7


def test_subset_and_lists_are_aligned():
    data = column([[0, 1, -100], [1]], List(ClassLabel(names=["pin", "cash"])))
    aligned = align_labels(data, "label", config())
    assert aligned["label"][:] == [[2, 1, -100], [1]]


def test_names_written_out_become_ids():
    aligned = align_labels(column(["pin", "card"]), "label", config())
    assert aligned["label"][:] == [2, 0]
    with pytest.raises(ShrinkError, match=r"does not know 1 of the 2 in 'label': \['visa'\]"):
        align_labels(column(["pin", "visa"]), "label", config())


def test_case_alone_does_not_separate_names():
    aligned = align_labels(column([0, 1], ClassLabel(names=["Pin", "CARD"])), "label", config())
    assert aligned["label"][:] == [2, 0]
    both_cases = config(["pin", "PIN", "card"])
    with pytest.raises(ShrinkError, match="does not know 1"):
        align_labels(column([0, 1], ClassLabel(names=["Pin", "card"])), "label", both_cases)


@pytest.mark.parametrize("names", [["refund", "visa", "loan"], ["card", "cash", "loan"], [*NAMES, "loan"]])
def test_other_classes_are_refused(names):
    with pytest.raises(ShrinkError, match="`label_column` must hold the model's classes.*loan"):
        align_labels(column([0, 1], ClassLabel(names=names)), "label", config())


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (column([2, 0]), NAMES),
        (column([2, 0], ClassLabel(names=NAMES)), NAMES),
        (column([2, 0], ClassLabel(names=["x", "y", "z"])), ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (column([2, 0], ClassLabel(num_classes=3)), NAMES),
    ],
    ids=["no names", "same order", "generic model", "generic dataset"],
)
def test_rows_without_a_conflict_come_back_unchanged(data, names):
    assert align_labels(data, "label", config(names)) is data


def test_order_of_a_hand_written_config():
    hand_written = config()
    hand_written.id2label = {2: "pin", 0: "card", 1: "cash"}
    assert align_labels(column([0, 2], ClassLabel(names=NAMES)), "label", hand_written)["label"][:] == [0, 2]
