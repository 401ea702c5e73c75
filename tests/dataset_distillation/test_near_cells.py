"""Cells of faiss, held against the comparison of all pairs."""

import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hf_shrink.dataset_distillation.duplicate_methods.semantic import semantic
from hf_shrink.dataset_distillation.near_cells import NearCells
from hf_shrink.dataset_distillation.near_vectors import NearVectors
from hf_shrink.errors import MissingExtraError, ShrinkError
from tests.dataset_distillation.near_rows import as_set, directions

VECTORS = directions(3000, width=32)
ROWS = np.arange(3000)


def test_few_pairs_are_missed_and_none_is_too_much():
    left, right = ROWS[:2000], ROWS[1000:]
    wanted = as_set(NearVectors(VECTORS, 0.9).pairs(left, right))
    near = semantic(VECTORS, 0.9, exact_rows=1000)
    assert isinstance(near, NearCells)
    found = near.pairs(left, right)
    assert as_set(found) <= wanted
    assert len(found[0]) == len(as_set(found)) >= 0.999 * len(wanted) > 1000
    every = semantic(VECTORS, 0.9, exact_rows=1000, cells=20, probes=20)
    assert as_set(every.pairs(left, right)) == wanted


def test_all_pairs_are_compared_up_to_the_limit():
    assert type(semantic(VECTORS, 0.9, exact_rows=3000)) is NearVectors


def test_threads_and_runs_change_nothing():
    import faiss

    found = []
    for threads in (1, 2, 2):
        with threadpool_limits(threads):
            faiss.omp_set_num_threads(threads)
            found.append(semantic(VECTORS, 0.9, exact_rows=10, probes=2).pairs(ROWS, ROWS))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert np.array_equal(one, two)


def test_bad_options_are_refused(monkeypatch):
    with pytest.raises(ShrinkError, match="`probes` must be at least 1, got 0"):
        semantic(VECTORS, 0.9, exact_rows=10, probes=0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"hf_shrink\[scale\]"):
        semantic(VECTORS, 0.9, exact_rows=10)
