import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.strata import find_strata


def rows(values, feature):
    return Dataset.from_dict({"label": values}, features=Features({"label": feature}))


def test_classes_bear_their_names_and_absent_ones_are_left_out():
    strata = find_strata(rows([2, 0, 2], ClassLabel(names=["a", "b", "c"])), "label")
    assert (strata.kind, strata.names, strata.ids.tolist(), strata.sizes.tolist()) == (
        "classes",
        ("a", "c"),
        [1, 0, 1],
        [1, 2],
    )


def test_words_are_classes_and_texts_are_none():
    assert find_strata(rows(["b", "a", "b", "a"], Value("string")), "label").names == ("a", "b")
    assert find_strata(rows([f"answer {i}" for i in range(9)], Value("string")), "label").kind == "none"


def test_numbers_fall_into_ten_bins_of_equal_size():
    strata = find_strata(rows(np.random.default_rng(0).normal(size=200).tolist(), Value("float32")), "label")
    assert strata.kind == "values"
    assert strata.sizes.tolist() == [20] * 10


def test_numbers_that_are_mostly_alike_make_fewer_bins():
    strata = find_strata(rows([0.0] * 90 + [1.0] * 10, Value("float32")), "label")
    assert strata.sizes.sum() == 100
    assert (strata.sizes > 0).all()
    assert len(strata.names) == 2


def test_several_labels_become_a_table():
    strata = find_strata(rows([[0, 2], [], [2]], List(ClassLabel(names=["a", "b", "c"]))), "label")
    assert strata.kind == "labels"
    assert strata.labels.tolist() == [[True, True], [False, False], [False, True]]


def test_tags_outside_entities_are_no_label():
    strata = find_strata(rows([[0, 0, 1], [0, -100]], List(ClassLabel(names=["O", "B-PER"]))), "label")
    assert strata.labels.tolist() == [[True], [False]]


def test_answers_tell_no_class():
    feature = {"text": List(Value("string")), "answer_start": List(Value("int64"))}
    assert find_strata(rows([{"text": ["x"], "answer_start": [0]}], feature), "label").kind == "none"
    assert find_strata(rows([1, 2], Value("int64")), None).kind == "none"


@pytest.mark.parametrize(
    ("values", "feature"),
    [([0, -1], ClassLabel(names=["a"])), ([0.5, None], Value("float32")), (["a", None], Value("string"))],
)
def test_a_row_without_a_label_is_named(values, feature):
    with pytest.raises(ShrinkError, match="row 1 of 'label'"):
        find_strata(rows(values, feature), "label")


def test_a_part_keeps_what_it_has():
    part = find_strata(rows([2, 0, 1, 2], ClassLabel(names=["a", "b", "c"])), "label").only(np.array([0, 3, 2]))
    assert (part.names, part.ids.tolist()) == (("b", "c"), [1, 1, 0])
