import numpy as np
import pytest
from scipy.stats import t

from hf_shrink.dataset_distillation.bake_off import METHODS, Arm, Trial, bake_off, half_width, winner
from hf_shrink.dataset_distillation.candidates import as_picks
from hf_shrink.dataset_distillation.folds import deal
from tests.dataset_distillation.clusters import noise_pool, pool


def arms(*methods):
    return [Arm(method) for method in methods]


def test_a_method_that_covers_clusters_wins():
    trials = bake_off(pool(), np.array([8, 8, 8, 8]), arms("kmeans", "herding"))
    best = winner(trials)
    assert best.method in ("kmeans", "herding")
    assert trials[0].arm == Arm("stratified")
    assert trials[0].gain == 0
    found = next(trial for trial in trials if trial.arm == best)
    assert found.least_gain > 0
    assert found.score == pytest.approx(trials[0].score + found.gain)


@pytest.mark.parametrize("seed", range(4))
def test_where_nothing_wins_the_sample_does(seed):
    trials = bake_off(noise_pool(seed=seed), np.array([10, 10, 10, 10]), arms(*METHODS))
    assert winner(trials) == Arm("stratified")


def test_a_method_that_is_worse_never_wins():
    def first_rows(candidates, count, generator):
        return as_picks(np.argsort(candidates.embeddings[:, 0], kind="stable")[:count])

    trials = bake_off(pool(), np.array([8, 8, 8, 8]), [Arm(first_rows)])
    assert trials[1].gain < 0
    assert winner(trials) == Arm("stratified")


def test_of_several_that_beat_the_sample_the_best_is_taken():
    trials = [
        Trial(Arm("stratified"), np.array([0.5])),
        Trial(Arm("kmeans"), np.array([0.6]), 0.1, 0.05),
        Trial(Arm("herding"), np.array([0.7]), 0.2, -0.01),  # better by chance, for all that is known
        Trial(Arm("ccs"), np.array([0.502]), 0.002, 0.001),  # surely better, and by nothing
    ]
    assert winner(trials) == Arm("kmeans")


def test_rows_with_wrong_labels_are_cut_where_that_helps():
    rows = pool(rows=800)
    generator = np.random.default_rng(0)
    noisy = generator.random(800) < 0.3
    rows.strata.ids[noisy] = (rows.strata.ids[noisy] + 1) % 4
    counts = np.round(rows.strata.sizes * 0.1).astype(int)
    trials = bake_off(rows, counts, [Arm("kmeans"), Arm("kmeans", cut_noise=True)], noisy=noisy)
    assert trials[2].score > trials[1].score + 0.02
    assert winner(trials) == Arm("kmeans", cut_noise=True)


def test_the_same_rows_give_the_same_trials():
    first, second = (bake_off(pool(), np.array([4, 4, 4, 4]), arms("kmeans")) for _ in range(2))
    assert first[1].scores.tolist() == second[1].scores.tolist()


def test_half_widths_are_those_of_the_corrected_test():
    values = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    # Five folds: the variance of the mean is s^2 (1/5 + 1/4) and not s^2 / 5 (Nadeau & Bengio).
    by_hand = t.ppf(0.9, 4) * np.sqrt(values.var(ddof=1) * (0.2 + 0.25))
    assert half_width(values, 0.9) == pytest.approx(by_hand)
    assert half_width(np.full(5, 0.3), 0.9) == 0


def test_folds_hold_each_class_and_each_row_once():
    ids = np.repeat(np.arange(7), [50, 3, 2, 1, 11, 30, 5])
    fold = deal(ids, 5, seed=0)
    assert np.ptp(np.bincount(fold)) <= 1
    for k in range(7):
        assert np.ptp(np.bincount(fold[ids == k], minlength=5)) <= 1


def test_a_large_pool_is_tried_on_a_part_of_it(monkeypatch):
    asked = []

    def watching(candidates, count, generator):
        asked.append((candidates.size, count))
        return as_picks(generator.permutation(candidates.size)[:count])

    monkeypatch.setattr("hf_shrink.dataset_distillation.bake_off.MOST_ROWS", 200)
    rows = pool(rows=800)
    bake_off(rows, np.round(rows.strata.sizes * 0.2).astype(int), [Arm(watching)])
    sizes, counts = (np.array(part) for part in zip(*asked, strict=True))
    assert sizes.reshape(5, 4).sum(axis=1).tolist() == [160] * 5  # four fifths of 200
    assert np.abs(counts.reshape(5, 4).sum(axis=1) - 40).max() <= 2  # and a fifth of 200 is kept
