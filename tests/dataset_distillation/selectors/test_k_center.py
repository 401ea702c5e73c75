import importlib

import numpy as np
import pytest

from hf_shrink.dataset_distillation import SELECTORS, Candidates
from tests.dataset_distillation.selectors.rows import clumps, unit

module = importlib.import_module("hf_shrink.dataset_distillation.selectors.k_center")


def picks(rows, count):
    return SELECTORS["k_center"].function(Candidates(len(rows), rows), count, np.random.default_rng(0)).rows.tolist()


def plain(rows, count):
    """Farthest first as it is written down: every row against every pick, in fp64."""
    rows = rows.astype(np.float64)
    found = [int((rows * rows.mean(0)).sum(1).round(12).argmax())]
    cosines = np.full(len(rows), -np.inf)
    while len(found) < count:
        cosines = np.maximum(cosines, (rows * rows[found[-1]]).sum(1))
        cosines[found] = np.inf
        found.append(int(cosines.round(12).argmin()))
    return found


def radius(rows, chosen):
    return 1 - (rows @ rows[chosen].T).max(1).min()


def test_on_a_circle_it_halves_the_largest_gap():
    degrees = np.radians([0, 10, 20, 100, 180, 190, 350])
    rows = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    # the mean lies at 33 degrees; 190 is the farthest from 20 (170), then 100 (80 from 20, 90 from 190), then 350 (30)
    assert picks(rows, 4) == [2, 5, 3, 6]


@pytest.mark.parametrize("pool", [16, 64, 4096])
@pytest.mark.parametrize("stage", [1, 7, 48])
@pytest.mark.parametrize("seed", range(3))
def test_the_picks_are_those_of_the_plain_algorithm(monkeypatch, pool, stage, seed):
    monkeypatch.setattr(module, "POOL", pool)
    monkeypatch.setattr(module, "STAGE", stage)
    rows = clumps(500, width=24, seed=seed)
    assert picks(rows, 120) == plain(rows, 120)


def test_the_picks_are_those_of_the_plain_algorithm_where_many_rows_are_copies(monkeypatch):
    monkeypatch.setattr(module, "POOL", 32)
    rows = clumps(60, width=8)[np.random.default_rng(1).integers(60, size=400)]
    assert picks(rows, 150) == plain(rows, 150)


def test_rows_that_fp32_cannot_tell_apart_are_told_apart(monkeypatch):
    monkeypatch.setattr(module, "POOL", 32)
    generator = np.random.default_rng(3)
    near = unit(clumps(1, width=64) + 1e-4 * generator.standard_normal((300, 64)))  # cosines from 0.9999999 to 1
    assert picks(near, 40) == plain(near, 40)


def test_ties_go_to_the_lower_position(monkeypatch):
    monkeypatch.setattr(module, "POOL", 4)
    rows = np.repeat(np.eye(6, dtype=np.float32), 2, axis=0)  # each of six directions twice, all equally far
    assert picks(rows, 6) == [0, 2, 4, 6, 8, 10]
    assert picks(rows, 8)[6:] == [1, 3]


def test_sums_in_another_order_are_ties():
    generator = np.random.default_rng(0)
    far = generator.standard_normal(301)
    shuffled = np.array([generator.permutation(far) for _ in range(30)])  # the same sum, up to the last bits
    rows = unit(np.concatenate([np.ones((200, 301)), shuffled - far.mean()]))
    assert np.unique((rows[200:].astype(np.float64) * rows[0].astype(np.float64)).sum(1)).size > 1
    assert picks(rows, 2) == [0, 200]


def test_a_pool_of_rows_that_are_all_as_far_as_those_outside_grows(monkeypatch):
    monkeypatch.setattr(module, "POOL", 2)
    rows = np.eye(40, dtype=np.float32)
    assert picks(rows, 40) == list(range(40))


def test_its_radius_is_smaller_than_that_of_a_sample():
    rows = clumps(2000, width=16)
    samples = [np.random.default_rng(seed).permutation(2000)[:50] for seed in range(5)]
    assert radius(rows, picks(rows, 50)) < 0.9 * min(radius(rows, sample) for sample in samples)


def test_most_rows_are_held_against_few_picks(monkeypatch):
    monkeypatch.setattr(module, "POOL", 64)
    monkeypatch.setattr(module, "STAGE", 8)
    rows = clumps(4000, width=16)
    search = module._Search(rows, 200)
    while len(search.picks) < 200:
        search.fill_pool()
        search.draw()
    assert search.seen.mean() < 0.5 * 200
