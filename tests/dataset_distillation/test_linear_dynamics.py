"""The dynamics of a linear head on embeddings."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_shrink.dataset_distillation import linear_dynamics as module
from hf_shrink.dataset_distillation.dynamics import STATISTICS
from hf_shrink.dataset_distillation.linear_dynamics import linear_dynamics
from hf_shrink.errors import ShrinkError


def rows(size=300, classes=5, width=24, spread=0.25):
    generator = np.random.default_rng(0)
    labels = np.arange(size) % classes
    made = np.eye(classes, width)[labels] + spread * generator.standard_normal((size, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32), labels


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_it_gives_every_statistic_of_every_row_and_epoch():
    dynamics = linear_dynamics(*rows(), epochs=3)
    assert dynamics.keys() == STATISTICS.keys()
    for values in dynamics.values():
        assert values.shape == (3, 300)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_the_head_becomes_what_logistic_regression_is():
    embeddings, labels = rows()
    dynamics = linear_dynamics(embeddings, labels, epochs=300, learning_rate=0.03)
    fitted = LogisticRegression(C=np.inf, max_iter=5000).fit(embeddings * module.SCALE, labels)
    expected = fitted.predict_proba(embeddings * module.SCALE)[np.arange(300), labels]
    assert dynamics["loss"][-1].mean() == pytest.approx(-np.log(expected).mean(), abs=0.02)


def test_one_full_step_of_adam_by_hand():
    """From 0 all answers are alike, and Adam's first step is the sign of the gradient times the rate."""
    embeddings = rows(size=40, classes=2, width=3)[0]
    labels = (np.arange(40) % 3 == 0).astype(int)  # as many of each would leave the bias's gradient to rounding
    error = 0.5 - np.eye(2)[labels]
    inputs = embeddings.astype(np.float64) * module.SCALE
    weight, bias = -0.01 * np.sign(inputs.T @ error), -0.01 * np.sign(error.sum(0))
    logits = inputs @ weight + bias
    expected = logits[np.arange(40), labels] - logits[np.arange(40), 1 - labels]
    dynamics = linear_dynamics(embeddings, labels, epochs=1, batch_size=40, learning_rate=0.01)
    np.testing.assert_allclose(dynamics["logit_margin"][0], expected, atol=1e-5)


def test_a_seed_gives_the_same_values_with_any_number_of_threads():
    given = rows(size=3000, width=128)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(linear_dynamics(*given, epochs=2, seed=3))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*results)
    assert not same(results[0], linear_dynamics(*given, epochs=2, seed=4))


def test_the_caller_s_random_numbers_are_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    linear_dynamics(*rows(), epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_are_answered_in_parts(monkeypatch):
    whole = linear_dynamics(*rows(), epochs=2)
    monkeypatch.setattr(module, "AT_ONCE", 64)
    parts = linear_dynamics(*rows(), epochs=2)
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-4, atol=1e-6)


def test_rows_with_several_labels():
    embeddings, labels = rows()
    several = np.eye(5, dtype=bool)[labels] | np.eye(5, dtype=bool)[0]
    dynamics = linear_dynamics(embeddings, several, epochs=20)
    assert dynamics["correct"][-1].mean() > 0.9
    several[7] = ~several[7]
    wrong = linear_dynamics(embeddings, several, epochs=20)
    assert wrong["label_probability"].mean(0).argmin() == 7


def test_one_class_is_learned():
    losses = linear_dynamics(rows()[0], np.zeros(300, int))["loss"].mean(axis=1)
    assert losses[-1] < losses[0] < np.log(2)


def test_memory_order_changes_nothing():
    embeddings, labels = rows()
    assert same(linear_dynamics(embeddings, labels), linear_dynamics(np.asfortranarray(embeddings), labels))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x, y: (x[:-1], y), r"`embeddings` must have one row a label, at least 1, got shape \(299, 24\)"),
        (lambda x, y: (x[:0], y[:0]), "`embeddings` must have one row a label, at least 1"),
        (lambda x, y: (x[0], y), "`embeddings` must have one row a label"),
        (lambda x, y: (np.where(x == x[3], np.nan, x), y), "`embeddings` must be finite"),
        (lambda x, y: (x, y.astype(float)), "`labels` must be class ids from 0"),
        (lambda x, y: (x, y - 1), "`labels` must be class ids from 0.*from -1 to 3"),
        (lambda x, y: (x, np.eye(5, dtype=int)[y] * 2), "`labels` must be class ids from 0"),
    ],
)
def test_what_cannot_be_learned_is_refused(change, error):
    with pytest.raises(ShrinkError, match=error):
        linear_dynamics(*change(*rows()))


@pytest.mark.parametrize("argument", ["epochs", "batch_size"])
def test_counts_of_nothing_are_refused(argument):
    with pytest.raises(ShrinkError, match=f"`{argument}` must be at least 1, got 0"):
        linear_dynamics(*rows(), **{argument: 0})
