"""What every selector does, the registered ones and those to come."""

from dataclasses import fields, replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation import SELECTORS, Candidates
from tests.dataset_distillation.selectors.rows import clumps

ROWS = 90
READS = {field.name for field in fields(Candidates)} - {"size"}


@pytest.fixture(params=list(SELECTORS))
def selector(request):
    return SELECTORS[request.param]


def candidates(size=ROWS, seed=0):
    """Rows in four clumps, each field filled; those that matter are of the first two."""
    generator = np.random.default_rng(seed)
    rows = clumps(size + 4, seed=seed)
    return Candidates(
        size,
        embeddings=rows[4:],
        difficulty=generator.random(size, dtype=np.float32),
        targets=rows[:2],
        labels=generator.random((size, 5)) < 0.3,
    )


def pick(selector, given, count, seed=0):
    return selector.function(given, count, np.random.default_rng(seed))


def check(picks, count, size):
    assert picks.rows.dtype == np.int64
    assert picks.rows.shape == (count,)
    assert len(set(picks.rows.tolist())) == count
    assert picks.rows.min() >= 0
    assert picks.rows.max() < size
    if picks.weights is not None:
        assert picks.weights.dtype == np.float32
        assert picks.weights.shape == (count,)
        assert picks.weights.min() >= 1
        assert picks.weights.sum() == size
    if picks.clusters is not None:
        assert picks.clusters.dtype == np.int32
        assert picks.clusters.shape == (count,)


def same(left, right):
    pairs = [(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)]
    return all(a is b is None or np.array_equal(a, b) for a, b in pairs)


def test_it_says_what_it_reads_and_whence_it_comes(selector):
    assert set(selector.facts["reads"]) <= READS
    assert isinstance(selector.facts["strata"], bool)
    assert selector.paper.startswith(("arXiv:", "https://"))
    assert selector.summary.endswith(").")


@pytest.mark.parametrize("count", [1, 2, 17, ROWS - 1, ROWS])
def test_it_picks_so_many_rows_none_twice(selector, count):
    check(pick(selector, candidates(), count), count, ROWS)


def test_it_picks_the_only_row(selector):
    check(pick(selector, candidates(1), 1), 1, 1)


def test_it_leaves_the_rows_as_they_are(selector):
    given, untouched = candidates(), candidates()
    pick(selector, given, 20)
    for field in READS:
        assert np.array_equal(getattr(given, field), getattr(untouched, field))


def test_it_reads_nothing_but_what_it_says(selector):
    given = candidates()
    nothing = replace(given, **dict.fromkeys(READS - set(selector.facts["reads"])))
    assert same(pick(selector, given, 20), pick(selector, nothing, 20))


def test_what_it_reads_must_be_there(selector):
    for field in set(selector.facts["reads"]) - {"labels"}:  # without them each row has one label
        with pytest.raises(ShrinkError, match=f"`{field}`"):
            pick(selector, replace(candidates(), **{field: None}), 20)


def test_the_same_seed_gives_the_same_rows_with_any_number_of_threads(selector):
    given = candidates(3000)
    with threadpool_limits(1):
        alone = pick(selector, given, 250)
    with threadpool_limits(2):
        assert same(alone, pick(selector, given, 250))


def test_order_in_memory_and_files_change_nothing(selector, tmp_path):
    given = candidates()
    fortran = replace(given, embeddings=np.asfortranarray(given.embeddings), targets=np.asfortranarray(given.targets))
    strided = replace(given, embeddings=np.repeat(given.embeddings, 2, axis=1)[:, ::2])
    mapped = {}
    for field in READS:
        np.save(tmp_path / field, getattr(given, field))
        mapped[field] = np.load(tmp_path / f"{field}.npy", mmap_mode="r")
    expected = pick(selector, given, 20)
    for other in (fortran, strided, Candidates(ROWS, **mapped)):
        assert same(expected, pick(selector, other, 20))


@pytest.mark.parametrize("count", [1, 7, 40])
def test_rows_that_are_all_equal_do_not_break_it(selector, count):
    given = candidates(40)
    equal = replace(
        given,
        embeddings=np.repeat(given.embeddings[:1], 40, axis=0),
        difficulty=np.full(40, 0.5, dtype=np.float32),
        labels=np.ones((40, 5), dtype=bool),
    )
    check(pick(selector, equal, count), count, 40)


def test_duplicates_do_not_break_it(selector):
    given = candidates(60)
    copies = np.arange(60) % 6  # fewer places than picks
    check(pick(selector, replace(given, embeddings=given.embeddings[copies]), 25), 25, 60)
