"""Embeddings that a user gives are checked once, and come out in one form."""

import numpy as np
import pytest
import torch

from hf_shrink.dataset_distillation.embeddings import BLOCK, check_embeddings
from hf_shrink.errors import ShrinkError

GIVEN = [[3.0, 4.0], [0.0, -2.0], [1.0, 1.0]]
UNIT = np.array([[0.6, 0.8], [0.0, -1.0], [0.5**0.5, 0.5**0.5]])


@pytest.mark.parametrize(
    "form",
    [list, np.array, torch.tensor, lambda g: np.array(g, dtype=np.float16), lambda g: np.array(g).astype(int)],
    ids=["list", "array", "tensor", "half", "whole"],
)
def test_value_by_hand_whatever_the_form(form):
    found = check_embeddings(form(GIVEN), 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, UNIT, atol=1e-7)


def test_what_was_given_stays_as_it_was():
    given = np.array(GIVEN, dtype=np.float32)
    check_embeddings(given, 3)[:] = 0
    np.testing.assert_array_equal(given, np.array(GIVEN, dtype=np.float32))


def test_numbers_whose_squares_overflow_have_a_direction_too():
    given = np.array([[3e200, 4e200], [3e-200, -4e-200]])
    np.testing.assert_allclose(check_embeddings(given, 2), [[0.6, 0.8], [0.6, -0.8]], rtol=1e-6)


def test_rows_are_the_same_in_every_block():
    given = np.random.default_rng(0).normal(size=(BLOCK + 3, 2)).astype(np.float32)
    expected = given / np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(check_embeddings(given, len(given)), expected, atol=1e-7)


def test_one_row_need_not_differ_from_others():
    assert check_embeddings([[2.0, 0.0]], 1).tolist() == [[1.0, 0.0]]


NAN = [[1.0, 0.0], [0.0, float("nan")], [1.0, 1.0]]
REFUSED = {
    "another length": (GIVEN[:2], "one row for each of the 3"),
    "NaN": (NAN, "row 1 has NaN"),
    "infinity": ([[1.0, 0.0], [0.0, 1.0], [float("-inf"), 1.0]], "row 2 has NaN or infinity"),
    "zero": ([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]], "row 0 is zero"),
    "all equal": ([[1.0, 2.0]] * 3, "differ from row to row"),
    "one direction": ([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], "differ from row to row"),
    "ragged": ([[1.0], [1.0, 2.0], [3.0]], "a table of numbers"),
    "text": ([["a", "b"]] * 3, "a table of numbers"),
    "a gradient": (torch.ones(3, 2, requires_grad=True), "a table of numbers"),
    "one number a row": ([1.0, 2.0, 3.0], r"shape \(rows, width\)"),
    "no column": (np.zeros((3, 0)), r"shape \(rows, width\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_selector_can_use_is_refused(case):
    embeddings, match = REFUSED[case]
    with pytest.raises(ShrinkError, match=match):
        check_embeddings(embeddings, 3)


def test_a_row_of_a_later_block_is_named_by_its_own_number():
    given = np.ones((BLOCK + 3, 2))
    given[BLOCK + 1] = 0
    with pytest.raises(ShrinkError, match=f"row {BLOCK + 1} is zero"):
        check_embeddings(given, len(given))
