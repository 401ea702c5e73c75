import importlib

import numpy as np
import pytest
from sklearn.cluster import KMeans

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from tests.dataset_distillation.selectors.rows import clumps, unit

module = importlib.import_module("hf_shrink.dataset_distillation.selectors.kmeans")


def pick(rows, count, seed=0, **options):
    given = Candidates(len(rows), rows)
    return SELECTORS["kmeans"].function(given, count, np.random.default_rng(seed), **options)


def error(rows, chosen):
    """Mean of 1 - cosine with the nearest of the chosen."""
    return 1 - (rows @ rows[chosen].T).max(1).mean()


def test_of_two_clusters_the_middle_rows_are_picked_the_larger_first():
    degrees = np.radians([0, 4, 10, 90, 93, 97, 105, 101])
    rows = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    picks = pick(rows, 2)
    # the means point to 4.7 and to 97.2 degrees
    assert picks.rows.tolist() == [5, 1]
    assert picks.weights.tolist() == [5, 3]
    assert len(set(picks.clusters.tolist())) == 2


@pytest.mark.parametrize("count", [4, 20, 100])
def test_its_rows_are_as_near_to_the_others_as_those_of_sklearns_clusters(count):
    rows = clumps(1000, width=24, count=20)
    fitted = KMeans(count, n_init=3, random_state=0).fit(rows)
    theirs = (rows @ unit(fitted.cluster_centers_).T).argmax(0)
    assert error(rows, pick(rows, count).rows) < 1.03 * error(rows, theirs)


def test_its_rows_are_nearer_to_the_others_than_a_sample():
    rows = clumps(1000, width=24, count=20)
    samples = [np.random.default_rng(seed).permutation(1000)[:40] for seed in range(5)]
    assert error(rows, pick(rows, 40).rows) < 0.9 * min(error(rows, sample) for sample in samples)


def test_small_clusters_are_found_beside_a_large_one():
    rows = np.concatenate([clumps(900, count=1, seed=1), clumps(10, count=1, spread=0.1, seed=7)])
    assert max(pick(rows, 6).rows) >= 900


def test_weights_are_the_sizes_of_the_clusters():
    rows = np.repeat(clumps(3, count=3), [7, 2, 4], axis=0)
    picks = pick(rows, 3)
    assert picks.rows.tolist() == [0, 9, 7]
    assert picks.weights.tolist() == [7, 4, 2]


def test_first_centres_are_drawn_by_weight_none_twice():
    weights, chosen = np.array([5.0, 1, 0.01, 1, 1, 1]), np.array([0, 4])
    draws = [module._draw(weights, chosen, 3, np.random.default_rng(seed)).tolist() for seed in range(300)]
    assert all(len(set(draw)) == 3 and not {0, 4} & set(draw) for draw in draws)
    assert sum(2 in draw for draw in draws) < 30
    assert module._draw(weights, chosen, 4, np.random.default_rng(0)).tolist() == [1, 2, 3, 5]


@pytest.mark.filterwarnings("error")
def test_copies_beyond_the_places_stand_for_themselves():
    rows = np.repeat(clumps(3, count=3), [7, 2, 4], axis=0)
    picks = pick(rows, 6)
    assert len(set(picks.rows.tolist())) == 6
    assert {0, 7, 9} <= set(picks.rows.tolist())  # each place is there
    assert picks.weights.sum() == 13
    assert len(set(picks.clusters.tolist())) == 6


def test_more_moves_and_restarts_bring_the_centres_nearer():
    rows = clumps(1000, width=24, count=20)
    few = np.mean([error(rows, pick(rows, 30, seed, iterations=1, restarts=1).rows) for seed in range(5)])
    many = np.mean([error(rows, pick(rows, 30, seed).rows) for seed in range(5)])
    assert many < few


@pytest.mark.parametrize("option", ["iterations", "restarts"])
def test_options_below_one_are_refused(option):
    with pytest.raises(ShrinkError, match=f"`{option}` must be"):
        pick(clumps(10), 2, **{option: 0})
