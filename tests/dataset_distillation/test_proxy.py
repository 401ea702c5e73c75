import warnings

import numpy as np
import pytest

from hf_shrink.dataset_distillation.proxy import head_score
from hf_shrink.dataset_distillation.strata import Strata
from tests.dataset_distillation.clusters import clustered

TRAIN, TEST = np.arange(400), np.arange(400, 600)


def test_a_head_learns_classes_and_nothing_where_there_is_nothing():
    vectors, ids = clustered()
    assert head_score(vectors, Strata("classes", ids, tuple("abcd")), TRAIN, TEST) > 0.9
    mixed = np.random.default_rng(0).permutation(ids)
    assert head_score(vectors, Strata("classes", mixed, tuple("abcd")), TRAIN, TEST) < 0.5


def test_several_labels_are_marked_by_micro_f1():
    vectors, ids = clustered()
    labels = np.stack([ids % 2 == 0, ids >= 2, np.ones(600, dtype=bool)], axis=1)
    strata = Strata("labels", np.zeros(600, dtype=np.int64), ("all",), labels=labels)
    found = head_score(vectors, strata, TRAIN, TEST)
    assert 0.9 < found <= 1
    always = 2 * labels[TEST].sum() / (labels[TEST].sum() + labels[TEST].size)  # every label for every row
    assert found > always


def test_numbers_are_marked_by_the_variance_explained():
    vectors, _ = clustered()
    values = (vectors @ np.arange(24)).astype(np.float64)
    strata = Strata("values", np.zeros(600, dtype=np.int64), ("all",), values=values)
    assert head_score(vectors, strata, TRAIN, TEST) > 0.9
    strata = Strata("values", strata.ids, ("all",), values=np.random.default_rng(0).normal(size=600))
    assert head_score(vectors, strata, TRAIN, TEST) < 0.1


def test_rows_of_one_class_say_that_class():
    vectors, ids = clustered()
    strata = Strata("classes", ids, tuple("abcd"))
    assert head_score(vectors, strata, np.flatnonzero(ids == 2)[:5], TEST) == pytest.approx((ids[TEST] == 2).mean())


def test_one_row_a_class_is_no_reason_to_warn():
    vectors, ids = clustered()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head_score(vectors, Strata("classes", ids, tuple("abcd")), np.unique(ids, return_index=True)[1], TEST)
