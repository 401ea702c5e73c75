"""The selectors that keep the hardest rows, and the order that all readers of difficulty share."""

import numpy as np
import pytest

from hf_shrink.dataset_distillation import SCORES, SELECTORS, Candidates
from hf_shrink.dataset_distillation.hardest import hardest_first, without_hardest
from hf_shrink.errors import ShrinkError

HARDEST = ("el2n", "entropy", "forgetting", "margin")


def candidates(*difficulty):
    return Candidates(len(difficulty), difficulty=np.array(difficulty, dtype=np.float32))


def picks(name, given, count):
    return SELECTORS[name].function(given, count, np.random.default_rng(0)).rows.tolist()


@pytest.mark.parametrize("name", HARDEST)
def test_they_keep_the_hardest_and_of_equals_the_first(name):
    assert picks(name, candidates(1, 3, 2, 3, 0, 2), 4) == [1, 3, 2, 5]


def test_each_reader_of_difficulty_says_which_score_it_is():
    readers = {name: method for name, method in SELECTORS.items() if "difficulty" in method.facts["reads"]}
    assert set(HARDEST) < readers.keys()
    for name, method in readers.items():
        assert method.facts["score"] in SCORES
        assert name not in HARDEST or (method.facts["score"], method.paper) == (name, SCORES[name].paper)


@pytest.mark.parametrize("name", [*HARDEST, "ccs", "d2"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_without_a_score_is_refused(name, wrong):
    """NaN would be sorted among the easy rows, and an unseen row never picked."""
    given = Candidates(3, np.eye(3, dtype=np.float32), np.array([1, wrong, 2], dtype=np.float32))
    with pytest.raises(ShrinkError, match="`difficulty` must be finite, but 1 of 3 rows"):
        picks(name, given, 2)


@pytest.mark.parametrize("name", [*HARDEST, "ccs", "d2"])
def test_difficulty_that_was_not_given_is_said(name):
    with pytest.raises(ShrinkError, match="`difficulty` must be given"):
        picks(name, Candidates(3, np.eye(3, dtype=np.float32)), 2)


def test_values_that_differ_in_fp32_only_are_told_apart():
    close = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    assert hardest_first(candidates(*close)).tolist() == [1, 0]


def test_the_hardest_are_left_out_as_far_as_enough_are_left():
    given = candidates(5, 1, 4, 2, 3)
    assert without_hardest(given, 1, 0.4).tolist() == [1, 3, 4]
    assert without_hardest(given, 4, 0.4).tolist() == [1, 2, 3, 4]
    assert without_hardest(given, 5, 0.4).tolist() == [0, 1, 2, 3, 4]
    assert without_hardest(given, 1, 0.0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["ccs", "d2"])
@pytest.mark.parametrize("share", [-0.1, 1.0, np.nan])
def test_a_share_outside_its_range_is_refused(name, share):
    given = Candidates(3, np.eye(3, dtype=np.float32), np.ones(3, dtype=np.float32))
    with pytest.raises(ShrinkError, match=r"`hardest_share` must be in \[0, 1\)"):
        SELECTORS[name].function(given, 2, np.random.default_rng(0), hardest_share=share)
