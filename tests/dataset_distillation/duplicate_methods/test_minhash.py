"""MinHash: what its bands bring together, and what becomes of it."""

import sys

import numpy as np
import pytest

from hf_shrink.dataset_distillation.duplicate_methods import minhash as module
from hf_shrink.dataset_distillation.duplicate_methods.jaccard import jaccard
from hf_shrink.dataset_distillation.duplicate_methods.minhash import FOUND, minhash
from hf_shrink.errors import MissingExtraError, ShrinkError
from tests.dataset_distillation.near_rows import as_set, sentences

TEXTS = sorted(set(sentences(1500, length=40)))
ROWS = np.arange(len(TEXTS))


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_it_finds_nearly_all_pairs_and_none_that_is_too_unlike(threshold):
    found = as_set(minhash(TEXTS, threshold).pairs(ROWS, ROWS))
    wanted = as_set(jaccard(TEXTS, threshold).pairs(ROWS, ROWS))
    assert found <= wanted
    assert len(found) >= FOUND * 0.99 * len(wanted) > 20


def flagged(near):
    return set(np.flatnonzero(near._sizes).tolist())


def test_those_that_share_a_band_alone_are_compared_in_full():
    near = minhash(TEXTS, 0.9)
    paired = set(near.pairs(ROWS, ROWS)[0].tolist())
    assert paired < flagged(near) < set(ROWS.tolist())
    assert len(flagged(near)) > 1.2 * len(paired)  # without the comparison these would be duplicates too


def test_what_rensa_flags_are_the_rows_that_share_a_band():
    signatures = module._sign(TEXTS, "characters", 5, 128, 0)
    bands = np.asarray(signatures.to_rows(), np.uint32).reshape(len(TEXTS), 16, 8)
    shared = np.zeros(len(TEXTS), dtype=bool)
    for band in range(16):
        _, own, counts = np.unique(bands[:, band], axis=0, return_inverse=True, return_counts=True)
        shared |= counts[own] > 1
    assert flagged(minhash(TEXTS, 0.9)) == set(np.flatnonzero(shared).tolist())


@pytest.mark.parametrize(
    ("threshold", "width"),
    [(0.9, 8), (0.8, 4), (0.5, 2), (1.0, 128), (0.1, 1)],  # 1 - (1 - 0.9^8)^16 = 0.9999, 1 - (1 - 0.9^16)^8 = 0.80
)
def test_bands_are_as_wide_as_they_may_be(threshold, width):
    assert module._band_width(threshold, 128) == width


def test_blocks_change_nothing(monkeypatch):
    whole = minhash(TEXTS, 0.8).pairs(ROWS, ROWS)
    monkeypatch.setattr(module, "BLOCK", 5000)
    assert len(module._parts(TEXTS)) > 5
    assert [text for part in module._parts(TEXTS) for text in part] == TEXTS
    small = minhash(TEXTS, 0.8).pairs(ROWS, ROWS)
    assert as_set(whole) == as_set(small)


def test_options_reach_the_shingles_and_the_permutations():
    swapped = ["one two three four five six", "four five six one two three"]
    both = np.arange(2)
    assert len(minhash(swapped, 0.9, shingles="words", shingle_size=1).pairs(both, both)[0]) == 2
    assert not len(minhash(swapped, 0.9, shingles="words", shingle_size=2).pairs(both, both)[0])
    assert flagged(minhash(TEXTS, 0.9, seed=1)) != flagged(minhash(TEXTS, 0.9, seed=2))
    assert flagged(minhash(TEXTS, 0.9, permutations=512)) != flagged(minhash(TEXTS, 0.9))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shingles": "tokens"}, '`shingles` must be "characters" or "words", got \'tokens\''),
        ({"shingle_size": 0}, "`shingle_size` must be a count of at least 1, got 0"),
        ({"shingle_size": 2.5}, "`shingle_size` must be a count"),
        ({"permutations": 2}, "`permutations` must be more than 2 to find pairs of similarity 0.8"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ShrinkError, match=said):
        minhash(TEXTS[:5], 0.8, **options)


def test_without_rensa_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingExtraError, match=r"hf_shrink\[scale\]"):
        minhash(TEXTS, 0.8)
