import numpy as np
import pytest

from hf_shrink.dataset_distillation import SELECTORS, Candidates


def pick(labels, count, seed=0, size=None):
    given = Candidates(len(labels) if size is None else size, labels=labels)
    return SELECTORS["stratified"].function(given, count, np.random.default_rng(seed)).rows


def rare_labels(size=1000):
    """Eight labels, the first on half of the rows, each next one on about half as many; some rows have none."""
    generator = np.random.default_rng(3)
    return generator.random((size, 8)) < 0.5 ** np.arange(1, 9)


def drift(labels, rows):
    """Largest difference between the number of rows of a label and its share."""
    return np.abs(labels[rows].sum(0) - labels.sum(0) * len(rows) / len(labels)).max()


def test_one_row_of_each_pair_is_kept():
    labels = np.repeat(np.eye(5, dtype=bool), 2, axis=0)
    for seed in range(5):
        assert sorted(pick(labels, 5, seed) // 2) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [100, 333, 900])
@pytest.mark.parametrize("seed", range(3))
def test_every_label_keeps_its_share(count, seed):
    labels = rare_labels()
    assert drift(labels, pick(labels, count, seed)) <= 1.5


def test_a_sample_keeps_the_shares_less_well():
    labels = rare_labels()
    samples = [np.random.default_rng(seed).permutation(1000)[:100] for seed in range(10)]
    assert max(drift(labels, pick(labels, 100, seed)) for seed in range(10)) < min(drift(labels, s) for s in samples)


def test_labels_that_go_together_keep_their_share():
    together = np.zeros((400, 3), dtype=bool)
    together[:40, :2] = True  # the first two labels on the same rows
    together[40:, 2] = True
    assert together[pick(together, 40)].sum(0).tolist() == [4, 4, 36]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_so_many_rows_are_kept_also_where_no_label_wants_a_whole_one(count):
    assert len(set(pick(np.eye(9, dtype=bool), count).tolist())) == count


def test_rows_without_labels_fill_what_is_left():
    labels = np.zeros((100, 2), dtype=bool)
    labels[:10] = True
    rows = pick(labels, 50)
    assert (rows < 10).sum() == 5
    assert len(rows) == 50
    assert len(pick(np.zeros((30, 2), dtype=bool), 7)) == 7


def test_without_labels_it_is_a_draw_that_hangs_on_the_seed():
    first, again, other = pick(None, 50, 0, 1000), pick(None, 50, 0, 1000), pick(None, 50, 1, 1000)
    assert first.tolist() == again.tolist() != other.tolist()
    counts = np.bincount(np.concatenate([pick(None, 5, seed, 10) for seed in range(400)]), minlength=10)
    assert counts.min() > 150  # each row is kept in about half of the draws


def test_the_kept_rows_come_in_random_order():
    labels = np.repeat(np.eye(2, dtype=bool), 50, axis=0)
    halves = pick(labels, 40) // 50
    assert 5 < np.flatnonzero(halves).mean() < 35
    assert halves.tolist() != sorted(halves)
