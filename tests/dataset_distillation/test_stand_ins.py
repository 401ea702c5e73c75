"""Who stays and who stands for whom, held against loops over all pairs."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from hf_shrink.dataset_distillation import stand_ins
from hf_shrink.dataset_distillation.near_vectors import NearVectors
from hf_shrink.dataset_distillation.stand_ins import find_stand_ins
from tests.dataset_distillation.near_rows import directions


def arc(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def ones(count):
    return np.ones(count, np.int64)


def plain(cosines, threshold, keep, weights):
    count = len(cosines)
    near = (cosines >= threshold) & ~np.eye(count, dtype=bool)
    order = list(range(count))
    if keep == "central":
        total = [weights[i] + sum(cosines[i, j] * weights[j] for j in range(count) if near[i, j]) for i in order]
        order.sort(key=lambda i: (-round(total[i], 6), i))
    kept, who, alike = [], list(range(count)), [1.0] * count
    for i in order:
        partners = [j for j in kept if near[i, j]]
        if partners:
            who[i] = min(partners, key=lambda j: (-cosines[i, j], j))
            alike[i] = cosines[i, who[i]]
        else:
            kept.append(i)
    return who, alike


@pytest.mark.parametrize("keep", ["first", "central"])
@pytest.mark.parametrize("block", [1024, 37])
def test_it_is_the_plain_loop(keep, block, monkeypatch):
    monkeypatch.setattr(stand_ins, "BLOCK", block)
    vectors, weights = directions(240), np.random.default_rng(0).integers(1, 4, 240)
    double = vectors.astype(np.float64)
    lengths = np.linalg.norm(double, axis=1)
    cosines = np.round(double @ double.T / np.outer(lengths, lengths), 7)
    who, alike = find_stand_ins(NearVectors(vectors, 0.8), keep, weights)
    wanted = plain(cosines, 0.8, keep, weights)
    assert who.tolist() == wanted[0]
    assert alike.tolist() == pytest.approx(wanted[1], abs=1e-6)
    assert 20 < (who != np.arange(240)).sum() < 220


def test_a_chain_takes_away_no_row_that_is_unlike_the_kept_one():
    vectors = arc(0, 20, 40, 60, 80)  # cos 20 degrees = 0.94, cos 40 = 0.77
    who, _ = find_stand_ins(NearVectors(vectors, 0.9), "first", ones(5))
    assert who.tolist() == [0, 0, 2, 2, 4]
    together = connected_components(vectors @ vectors.T >= 0.9)[0]
    assert together == 1  # groups would leave one row of five, which is at right angles to the last


def test_the_middle_of_a_neighbourhood_stays_where_it_is_asked_for():
    near = NearVectors(arc(0, 20, 40), 0.9)
    assert find_stand_ins(near, "first", ones(3))[0].tolist() == [0, 0, 2]
    assert find_stand_ins(near, "central", ones(3))[0].tolist() == [1, 1, 1]
    assert find_stand_ins(near, "central", np.array([1, 1, 9]))[0].tolist() == [1, 1, 1]


def test_copies_weigh():
    near = NearVectors(arc(0, 10), 0.9)
    assert find_stand_ins(near, "central", np.array([1, 1]))[0].tolist() == [0, 0]
    assert find_stand_ins(near, "central", np.array([1, 3]))[0].tolist() == [1, 1]


def test_many_rows_that_are_all_alike_leave_one():
    who, _ = find_stand_ins(NearVectors(np.repeat(arc(30), 3000, axis=0), 0.99), "first", ones(3000))
    assert set(who.tolist()) == {0}
