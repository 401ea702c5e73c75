"""KeyIndex and SeenKeys against a dictionary and a set."""

import random

import numpy as np
import pytest

from hf_shrink.distillation import key_index
from hf_shrink.distillation.key_index import KeyIndex, SeenKeys


def some_keys(count, seed=0):
    generator = random.Random(seed)
    return [generator.randbytes(16) for _ in range(count)]


def test_finds_what_a_dictionary_finds():
    keys = some_keys(1000)
    index = KeyIndex.of([*keys, *keys[:10]])  # of equal keys the first counts
    wanted = [*some_keys(50, seed=1), *keys[::-1]]
    places = {key: place for place, key in enumerate(keys)}
    assert len(index) == 1000
    assert index.find(wanted).tolist() == [places.get(key, -1) for key in wanted]


def test_keys_that_end_in_zeros_are_told_apart():
    keys = [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"\1\0\1" + bytes(13)]
    assert KeyIndex.of(keys).find(keys).tolist() == [0, 1, 2, 3]
    assert KeyIndex.of(keys[1:]).find(keys[:1]).tolist() == [-1]


def test_an_empty_index_finds_nothing():
    assert KeyIndex.of([]).find(some_keys(2)).tolist() == [-1, -1]


def test_takes_24_bytes_a_key():
    index = KeyIndex.of(some_keys(1000))
    assert index.keys.nbytes + index.rows.nbytes == 24 * 1000


@pytest.mark.parametrize("merged_at", [7, 10**6])
def test_seen_keys(monkeypatch, merged_at):
    monkeypatch.setattr(key_index, "MERGED_AT", merged_at)
    keys = some_keys(40)
    seen, known = SeenKeys(KeyIndex.of(keys[:5])), set(keys[:5])
    generator = np.random.default_rng(0)
    for _ in range(60):
        batch = [keys[i] for i in generator.integers(0, 40, 6)]
        expected = []
        for place, key in enumerate(batch):
            if key not in known:
                known.add(key)
                expected.append(place)
        assert seen.first_seen(batch) == expected
    assert len(known) == 40
