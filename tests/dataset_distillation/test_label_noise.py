"""Wrong labels: how many are estimated, which are found, and what a weak head is not to be blamed for."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from hf_shrink.dataset_distillation import discriminant, label_noise
from hf_shrink.dataset_distillation.label_noise import find_label_noise
from hf_shrink.errors import ShrinkError

CLASSES = 6


def blobs(rows=3000, spread=0.25, seed=0, classes=CLASSES):
    """Classes around points of a sphere, the first twice as frequent as the last."""
    rng = np.random.default_rng(seed)
    shares = np.linspace(2, 1, classes)
    labels = rng.choice(classes, rows, p=shares / shares.sum())
    centres = rng.normal(size=(classes, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[labels] + spread * rng.normal(size=(rows, 16))).astype(np.float32), labels


def flip(labels, rate, seed=1):
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[rows] = (labels[rows] + rng.integers(1, labels.max() + 1, len(rows))) % (labels.max() + 1)
    return noisy, noisy != labels


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.4])
def test_the_rate_is_estimated_and_the_rows_are_found(rate):
    vectors, labels = blobs()
    noisy, wrong = flip(labels, rate)
    found = find_label_noise(vectors, noisy)
    assert found.rate == pytest.approx(rate, abs=0.04)
    assert found.noisy.sum() == round(found.rate * len(labels))
    assert wrong[found.noisy].mean() > 0.85  # by lot it would be the rate
    assert found.noisy[wrong].mean() > 0.75
    assert (found.suggested[wrong] == labels[wrong]).mean() > 0.9
    assert found.confidence[wrong].max() < np.median(found.confidence[~wrong])


def test_clean_labels_are_left_alone():
    found = find_label_noise(*blobs())
    assert found.rate < 0.003


def test_what_a_weak_head_gets_wrong_is_not_taken_for_noise():
    vectors, labels = blobs(spread=0.55)
    found = find_label_noise(vectors, labels)
    errors = (found.suggested != labels).mean()
    assert errors > 0.15
    assert found.rate < errors / 5


def test_all_rows_in_place_of_the_surest_would_take_a_heads_errors_for_noise(monkeypatch):
    vectors, labels = blobs(spread=0.55)
    monkeypatch.setattr(label_noise, "CONFIDENT", 1.0)
    found = find_label_noise(vectors, labels)
    assert found.rate == pytest.approx((found.suggested != labels).mean(), abs=1e-9)


def test_no_class_loses_more_than_half_of_its_rows():
    vectors, labels = blobs(classes=4)
    noisy = labels.copy()
    noisy[labels == 3] = 2  # nearly all of a class is called by the name of its neighbour
    noisy[np.flatnonzero(labels == 0)[:40]] = 3
    kept = noisy[~find_label_noise(vectors, noisy).noisy]
    for name in range(4):
        assert (kept == name).sum() >= (noisy == name).sum() / 2


def test_a_class_of_one_row_stays():
    vectors, labels = blobs(300)
    labels[7] = CLASSES
    found = find_label_noise(vectors, labels)
    assert not found.noisy[7]
    assert found.confidence[7] == 0  # no head was fitted to another row of it
    assert np.isfinite(found.confidence).all()


def test_the_head_is_a_linear_discriminant_analysis():
    vectors, labels = blobs(400, spread=0.5)
    vectors = vectors.astype(np.float64)
    shrinkage = 16 / (16 + 400)
    scores = discriminant._discriminant(vectors, labels, CLASSES, vectors)
    counts = np.bincount(labels)
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(CLASSES)])
    spread = vectors - means[labels]
    pooled = spread.T @ spread / 400
    pooled = (1 - shrinkage) * pooled + shrinkage * np.trace(pooled) / 16 * np.eye(16)
    for row in (0, 17, 399):
        away = vectors[row] - means
        wanted = -0.5 * np.einsum("cd,de,ce->c", away, np.linalg.inv(pooled), away) + np.log(counts / 400)
        np.testing.assert_allclose(np.diff(scores[row]), np.diff(wanted), rtol=1e-9)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(vectors, labels)
    assert (theirs.predict(vectors) == scores.argmax(axis=1)).mean() > 0.98


def test_the_confidence_is_out_of_fold():
    """A row whose label is wrong is doubted, though a head that saw it could have learnt it by heart."""
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 100)), rng.integers(0, 2, 60)
    found = find_label_noise(vectors, labels)
    assert 0.3 < (found.suggested == labels).mean() < 0.7  # nothing can be learnt here


def test_the_kind_of_input_and_the_number_of_threads_change_nothing():
    vectors, labels = blobs(800, spread=0.4)
    noisy, _ = flip(labels, 0.2)
    with threadpool_limits(1):
        one = find_label_noise(vectors, noisy, seed=3)
    with threadpool_limits(2):
        two = find_label_noise(vectors, noisy, seed=3)
    listed = find_label_noise(vectors.tolist(), noisy.tolist(), seed=3)
    named = find_label_noise(vectors, [f"class {label}" for label in noisy], seed=3)
    for other in (two, listed, named):
        assert one.rate == other.rate
        assert np.array_equal(one.noisy, other.noisy)
    assert set(named.suggested) == {f"class {c}" for c in range(CLASSES)}
    assert not np.array_equal(one.confidence, find_label_noise(vectors, noisy, seed=4).confidence)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.zeros(7)}, "`labels` must be one class for each of the 30 embeddings, got shape \\(7,\\)"),
        ({"labels": np.zeros(30)}, "`labels` must hold two classes or more, got 1"),
        ({"folds": 1}, "`folds` must be in \\[2, 30\\] .the rows given., got 1"),
        ({"folds": 31}, "`folds` must be in"),
        ({"embeddings": np.zeros(30)}, "`embeddings` must be numbers of shape"),
        ({"embeddings": [["a"]] * 30}, "`embeddings` must be numbers of shape"),
        ({"embeddings": np.full((30, 2), np.nan)}, "`embeddings` must be finite, but 30 of 30"),
    ],
)
def test_bad_input_is_refused(change, said):
    given = {"embeddings": np.eye(30), "labels": np.arange(30) % 3, **change}
    with pytest.raises(ShrinkError, match=said):
        find_label_noise(given.pop("embeddings"), given.pop("labels"), **given)
