"""Pairs of embeddings: held against the whole matrix of cosines."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hf_shrink.dataset_distillation import near_vectors
from hf_shrink.dataset_distillation.embeddings import unit_rows
from hf_shrink.dataset_distillation.near_vectors import NearVectors
from hf_shrink.dataset_distillation.vectors import check_vectors
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.near_rows import as_set, directions


@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_no_pair_is_missed(threshold, monkeypatch):
    vectors = directions(300)
    vectors[17] = vectors[4]
    monkeypatch.setattr(near_vectors, "BLOCK", (64, 50))
    monkeypatch.setattr(near_vectors, "CHUNK", 9)
    near, rows = NearVectors(vectors, threshold), np.arange(300)
    found = near.pairs(rows, rows)
    cosines = np.round(vectors.astype(np.float64) @ vectors.astype(np.float64).T, 6)
    np.fill_diagonal(cosines, -1)
    assert (4, 17) in as_set(found)
    assert as_set(found) == set(zip(*(part.tolist() for part in np.nonzero(cosines >= threshold)), strict=True))
    np.testing.assert_allclose(found[2], cosines[found[0], found[1]], atol=2e-6)


def test_a_product_in_float32_does_not_decide(monkeypatch):
    """A cosine is just the threshold; the product is off by its rounding."""
    first = np.zeros((1, 512))
    first[0, 0] = 1
    other = np.full((1, 512), np.sqrt(1 - 0.9**2) / np.sqrt(511))
    other[0, 0] = 0.9
    near = NearVectors(unit_rows(np.concatenate([first, other])), 0.9)
    assert as_set(near.pairs(np.array([0]), np.array([1]))) == {(0, 1)}
    assert not as_set(NearVectors(near.vectors, 0.900002).pairs(np.array([0]), np.array([1])))
    shifted = type(near)(near.vectors, 0.9)
    shifted._margin = -1e-5  # as if the product were too low by that much
    assert not as_set(shifted.pairs(np.array([0]), np.array([1])))


def test_threads_change_nothing():
    vectors, rows = directions(600, width=96), np.arange(600)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(NearVectors(vectors, 0.8).pairs(rows, rows))
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


def test_float16_lists_and_tensors_are_read_alike():
    torch = pytest.importorskip("torch")
    values = np.eye(3, dtype=np.float16)
    for given in (values, values.tolist(), torch.eye(3)):
        assert np.array_equal(check_vectors(given), np.eye(3))
    with pytest.raises(ShrinkError, match="one vector for each of the 4 rows, got 3. Encode the same rows"):
        check_vectors(values, rows=4)
