import numpy as np
import pytest

from hf_shrink.dataset_distillation.coverage import class_drift, measure_coverage
from tests.dataset_distillation.clusters import clustered


def test_distances_are_those_to_the_nearest_pick():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    found = measure_coverage(vectors, np.array([0]))
    assert (found.mean, found.radius) == (pytest.approx((0 + 1 + 0.4) / 3), pytest.approx(1))
    assert measure_coverage(vectors, np.arange(3)).radius == pytest.approx(0, abs=1e-6)


def test_blocks_change_nothing(monkeypatch):
    vectors, _ = clustered()
    whole = measure_coverage(vectors, np.arange(20))
    monkeypatch.setattr("hf_shrink.dataset_distillation.coverage.ROWS_AT_ONCE", 7)
    parts = measure_coverage(vectors, np.arange(20))
    assert (parts.mean, parts.radius) == (pytest.approx(whole.mean), pytest.approx(whole.radius))


def test_drift_is_the_share_that_would_have_to_change_class():
    assert class_drift(np.array([0, 0, 1, 1]), np.array([0, 1])) == 0
    assert class_drift(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == pytest.approx(0.25)
    assert class_drift(np.array([0, 1]), np.array([1])) == pytest.approx(0.5)
