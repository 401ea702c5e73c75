"""What every score does, the registered ones and those to come."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_shrink.dataset_distillation import SCORES
from hf_shrink.dataset_distillation.dynamics import STATISTICS
from hf_shrink.dataset_distillation.linear_dynamics import linear_dynamics

ROWS = 12
FLIPPED = slice(0, 60)  # rows of `noisy` with a wrong label
UNLABELLED = ("entropy", "margin")  # they tell where a model is unsure, whatever the label
MOVING = ("variability",)  # while a linear head learns, easy rows change most: its value is checked by hand


@pytest.fixture(params=list(SCORES))
def score(request):
    return SCORES[request.param]


def dynamics(epochs=5):
    generator = np.random.default_rng(0)
    made = {name: generator.random((epochs, ROWS), dtype=np.float32) for name in STATISTICS}
    made["correct"] = made["correct"].round()
    return made


def noisy():
    """Embeddings in three clumps, and labels of which one in ten is wrong."""
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 3
    rows = np.eye(3, 16)[labels] + 0.15 * generator.standard_normal((600, 16))
    given = labels.copy()
    given[FLIPPED] = (labels[FLIPPED] + 1) % 3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), given


def hardness(score, values):
    return values if score.facts["hard"] == "high" else -values


def test_it_says_what_it_reads_and_whence_it_comes(score):
    assert set(score.facts["reads"]) <= set(STATISTICS)
    assert score.facts["hard"] in ("high", "low")
    assert score.paper.startswith("arXiv:")
    assert score.summary.endswith(").")


def test_it_gives_one_number_a_row_and_reads_nothing_but_what_it_says(score):
    given = dynamics()
    values = score.function({name: given[name] for name in score.facts["reads"]})
    assert values.dtype == np.float32
    assert values.shape == (ROWS,)
    assert np.isfinite(values).all()
    assert all(np.array_equal(given[name], again) for name, again in dynamics().items())


def test_rows_do_not_know_of_each_other(score):
    given = dynamics()
    order = np.random.default_rng(1).permutation(ROWS)
    moved = score.function({name: values[:, order] for name, values in given.items()})
    assert np.array_equal(moved, score.function(given)[order])


@pytest.mark.parametrize("hidden", [0, 2, 4])
def test_an_epoch_that_did_not_see_a_row_is_left_out(score, hidden):
    given = dynamics()
    for values in given.values():
        values[hidden, 3] = np.nan
        values[:, 5] = np.nan
    values = score.function(given)
    assert np.isnan(values).nonzero()[0].tolist() == [5]
    without = {name: np.delete(values, hidden, axis=0) for name, values in given.items()}
    if score.name == "forgetting" and values[3] == 5:
        return  # never learned counts as forgotten in every epoch there is
    assert values[3] == score.function(without)[3]


def test_it_finds_rows_with_a_wrong_label(score):
    if score.name in MOVING:
        return
    wrong = np.zeros(600, bool)
    wrong[FLIPPED] = True
    values = hardness(score, score.function(linear_dynamics(*noisy(), seed=0)))
    assert roc_auc_score(wrong, values) > (0.5 if score.name in UNLABELLED else 0.95)


def test_it_calls_a_row_between_two_classes_harder_than_one_amid_its_own(score):
    if score.name in MOVING:
        return
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 2
    rows = np.eye(2, 8)[labels] + 0.02 * generator.standard_normal((600, 8))
    rows[:60] = np.eye(2, 8).mean(0) + 0.02 * generator.standard_normal((60, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = hardness(score, score.function(linear_dynamics(rows.astype(np.float32), labels, seed=0)))
    assert values[:60].mean() > values[60:].mean()
