"""Shingles and the pairs that share them: held against sets in plain Python."""

import numpy as np
import pytest

from hf_shrink.dataset_distillation import near_texts
from hf_shrink.dataset_distillation.near_texts import NearTexts, prefix_features
from hf_shrink.dataset_distillation.row_texts import normalise
from hf_shrink.dataset_distillation.shingles import hash_shingles, shingle_sets
from tests.dataset_distillation.near_rows import as_set, grams, jaccard, sentences

ODD = ["", "a", "ab cd", "ab cd", "aaaaaaaa", "日本語のテキスト", "🙂🙂🙂🙂🙂🙂", "x\ny", "one two three four", "ｘ y"]


def runs(text, size):
    words = text.split()
    words += [""] * (size - len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("unit", ["characters", "words"])
def test_sets_of_shingles_are_those_of_plain_python(unit, size):
    texts = ODD + sentences(40)
    plain = [grams(text, size) if unit == "characters" else runs(text, size) for text in texts]
    sets = shingle_sets(texts, unit, size)
    assert list(np.diff(sets.indptr)) == [len(wanted) for wanted in plain]
    assert sets.shape[1] == len(set.union(*plain))
    common = (sets @ sets.T).toarray()
    wanted = [[len(a & b) for b in plain] for a in plain]
    assert common.tolist() == wanted


def test_a_shingle_has_the_same_hash_wherever_it_stands():
    hashes, starts = hash_shingles(["abcdefgh", "xxabcdefghxx"], "characters", 8)
    assert hashes[0] == hashes[starts[1] + 2]
    hashes, starts = hash_shingles(["be quick", "we will be quick now"], "words", 2)
    assert hashes[0] == hashes[starts[1] + 2]


def test_the_order_of_words_counts():
    sets = shingle_sets(["dog bites man", "man bites dog"], "words", 2)
    assert (sets @ sets.T).toarray()[0, 1] == 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_no_pair_is_missed_and_none_is_too_much(threshold):
    texts = ODD + sentences(200)
    rows = np.arange(len(texts))
    wanted = {(i, j) for i in rows for j in rows if i != j and jaccard(texts[i], texts[j]) >= threshold}
    found = NearTexts(shingle_sets(texts), threshold).pairs(rows, rows)
    assert len(wanted) > 2
    assert as_set(found) == wanted
    assert len(found[0]) == len(wanted)
    for i, j, similarity in zip(*found, strict=True):
        assert similarity == jaccard(texts[i], texts[j])


def test_one_shingle_less_of_a_prefix_would_miss_pairs():
    texts = ["a b c d e f g h x", "a b c d e f g h y"]  # 8 of 10 words in common; the rarest word of each is its own
    features = prefix_features(shingle_sets(texts, "words", 1), 0.8)
    assert list(np.diff(features.indptr)) == [2, 2]
    shorter = features.copy()
    shorter.data[features.indptr[1:] - 1] = 0
    shorter.eliminate_zeros()
    for given, count in ((features, 1), (shorter, 0)):
        near = NearTexts(shingle_sets(texts, "words", 1), 0.8, given)
        assert len(near.pairs(np.array([0]), np.array([1]))[0]) == count


def test_blocks_change_nothing(monkeypatch):
    texts = sentences(150)
    near, left, right = NearTexts(shingle_sets(texts), 0.6), np.arange(0, 100), np.arange(40, 150)
    whole = near.pairs(left, right)
    monkeypatch.setattr(near_texts, "COST", 50)
    monkeypatch.setattr(near_texts, "CHUNK", 7)
    small = near.pairs(left, right)
    assert as_set(whole) == as_set(small)
    none = np.zeros(0, np.int64)
    assert [len(part) for part in near.pairs(none, right)] == [0, 0, 0]
    assert [len(part) for part in near.pairs(left, none)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  Hello\t\n World ", "hello world"),
        ("ﬁne ２０ Straße", "fine 20 strasse"),
        ("e\u0301", "é"),
        ("\u00a0", ""),
        ("ΰ", normalise("ΰ".upper())),
    ],
)
def test_what_makes_no_difference_is_taken_away(text, wanted):
    assert normalise(text) == wanted
    assert normalise(normalise(text)) == wanted
