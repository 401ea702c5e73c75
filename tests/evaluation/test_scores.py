import numpy as np
import pytest

from hf_shrink.evaluation.chosen_metric import choose_metric
from hf_shrink.evaluation.decoding import Predictions
from hf_shrink.evaluation.intervals import mcnemar, wilson
from hf_shrink.evaluation.scores import score_all


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("hf_shrink.evaluation.scores.RESAMPLES", 200)


def classes(ids, wanted):
    ids, wanted = np.asarray(ids), np.asarray(wanted)
    return Predictions(ids, wanted, ids, ids == wanted)


def test_shares_get_wilson_and_mcnemar():
    wanted = np.arange(100) % 4
    teacher, student = wanted.copy(), wanted.copy()
    teacher[:5] += 1
    student[3:20] += 1
    first, second = score_all(
        choose_metric("accuracy", "single_label_classification"), [classes(teacher, wanted), classes(student, wanted)]
    )
    assert first.value == 0.95
    assert first.interval == wilson(95, 100)
    assert (first.difference, first.agreement, first.p_value) == (None, None, None)
    assert second.value == 0.83
    assert second.agreement == 0.82  # rows 3 and 4 are wrong in the same way
    assert second.p_value == mcnemar(teacher == wanted, student == wanted) < 0.01
    assert second.difference[0] < -0.12 < second.difference[1] < 0


def test_other_metrics_get_the_bootstrap_and_no_p_value():
    draw = np.random.default_rng(0)
    wanted = draw.normal(size=200)
    close, far = wanted + 0.1 * draw.normal(size=200), wanted + draw.normal(size=200)
    numbers = [Predictions(found, wanted, None, None) for found in (close, far)]
    first, second = score_all(choose_metric("mse", "regression"), numbers)
    assert first.value == pytest.approx(np.mean((close - wanted) ** 2))
    assert first.interval[0] < first.value < first.interval[1]
    assert 0 < second.difference[0] < second.value - first.value < second.difference[1]
    assert (second.p_value, second.agreement) == (None, None)


def test_a_constant_model_has_no_correlation_and_claims_none():
    wanted = np.arange(10.0)
    first, second = score_all(
        choose_metric("spearman", "regression"),
        [Predictions(wanted, wanted, None, None), Predictions(np.zeros(10), wanted, None, None)],
    )
    assert first.value == pytest.approx(1.0)
    assert (second.value, second.interval, second.difference) == (None, None, None)


def test_agreement_is_of_tokens_and_of_whole_sets():
    tags = [Predictions([["O", "O"], ["O"]], [["O", "O"], ["O"]], np.array([0, 0, c]), None) for c in (0, 1)]
    assert score_all(choose_metric("f1_micro", "token_classification"), tags)[1].agreement == pytest.approx(2 / 3)
    sets = [np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]])]
    pair = [Predictions(s, sets[0], s, (s == sets[0]).all(-1)) for s in sets]
    second = score_all(choose_metric("accuracy", "multi_label_classification"), pair)[1]
    assert (second.agreement, second.value) == (0.5, 0.5)
