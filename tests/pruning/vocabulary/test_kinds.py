"""What each kind of model needs beside the tokens that are seen, on vocabularies small enough to follow by hand."""

from functools import partial

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.bpe import cut_merges, needed_parts
from hf_shrink.pruning.vocabulary.corpus import Corpus
from hf_shrink.pruning.vocabulary.definition import Definition
from hf_shrink.pruning.vocabulary.kinds import kind_of
from hf_shrink.pruning.vocabulary.token_counts import count_tokens, plain_backend
from hf_shrink.pruning.vocabulary.unigram import cut_pieces, needed_pieces
from hf_shrink.pruning.vocabulary.word_piece import needed_characters, tried_pieces


def names(definition, ids):
    return {definition.tokens[i] for i in ids}


def test_a_word_that_is_unknown_stays_unknown():
    """Without "abc", which no row shows, "abcd" would be "ab" and "##cd"."""
    vocabulary = {token: i for i, token in enumerate(["[UNK]", "ab", "abc", "##cd", "xab", "##z"])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    backend, definition = plain_backend(tokenizer), Definition(tokenizer)
    assert backend.encode("abcd ab").tokens == ["[UNK]", "ab"]
    corpus = Corpus(["abcd ab xab"], text_column=None, split=None, batch_size=2)
    seen = count_tokens(backend, corpus, 6, unknown=0, path=partial(tried_pieces, definition.model))
    assert names(definition, seen.on_the_way) == {"abc"}
    assert seen.counts.tolist() == [1, 1, 0, 0, 1, 0]


def test_single_characters_of_word_piece():
    model = {"vocab": {"[UNK]": 0, "ab": 1, "a": 2, "##a": 3, "##b": 4, "c": 5}, "continuing_subword_prefix": "##"}
    assert needed_characters(model, (), [1]) == {2, 3, 4}


def bpe(merges, **settings):
    vocabulary = {token: i for i, token in enumerate([*"abcd", *dict.fromkeys(a + b for a, b in merges)])}
    return {"vocab": vocabulary, "merges": merges, **settings}


def test_bpe_keeps_the_parts_that_a_token_is_really_merged_from():
    """ "abcd" may come of ab + cd or of abc + d; the merges' order says which."""
    merges = [["a", "b"], ["c", "d"], ["ab", "cd"], ["ab", "c"], ["abc", "d"]]
    model = bpe(merges)
    tokens = {i: token for token, i in model["vocab"].items()}
    parts = {tokens[i] for i in needed_parts(model, [model["vocab"]["abcd"]], ())}
    assert parts == {*"abcd", "ab", "cd", "abcd"}
    kept = {i: n for n, i in enumerate(sorted(model["vocab"][part] for part in parts))}
    assert cut_merges(model, kept)["merges"] == merges[:3]


def test_a_token_keeps_each_merge_whose_parts_stay():
    merges = [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
    model = bpe(merges)
    everything = {i: i for i in model["vocab"].values()}
    assert cut_merges(model, everything)["merges"] == merges
    without_bc = {i: n for n, i in enumerate(i for token, i in model["vocab"].items() if token != "bc")}
    assert cut_merges(model, without_bc)["merges"] == [["a", "b"], ["ab", "c"]]


def test_merges_written_as_one_string_stay_as_they_are():
    model = bpe([["a", "b"], ["c", "d"]]) | {"merges": ["a b", "c d"]}
    assert cut_merges(model, {i: i for i in model["vocab"].values() if i != model["vocab"]["cd"]})["merges"] == ["a b"]


def test_parts_behind_a_prefix_or_a_suffix():
    vocabulary = {token: i for i, token in enumerate(["a", "b</w>", "c</w>", "ab</w>", "##x"])}
    model = {"vocab": vocabulary, "merges": [["a", "b</w>"]], "end_of_word_suffix": "</w>"}
    assert needed_parts(model, [3], ()) == {0, 1}


def test_the_bytes_stay():
    alphabet = ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate(sorted(alphabet))}
    assert needed_parts({"vocab": vocabulary, "merges": []}, (), ()) == set(range(256))
    fallback = {f"<0x{byte:02X}>": byte for byte in range(256)}
    assert needed_parts({"vocab": fallback, "merges": [], "byte_fallback": True}, (), ()) == set(range(256))


PIECES = [("<unk>", 0.0), ("▁a", -2.0), ("b", -9.0), ("▁ab", -4.0), ("zz", -30.0), ("c", -3.0)]


def test_the_unknown_keeps_its_price():
    """An unknown character costs 10 more than the worst piece, which is "zz" here."""
    model = {"vocab": [list(piece) for piece in PIECES], "unk_id": 0}
    assert needed_pieces(model, [3], [3]) == {0, 4, 2}  # unknown, worst, and "b" of "▁ab"
    smaller = cut_pieces(model, {0: 0, 2: 1, 3: 2, 4: 3})
    assert smaller["vocab"] == [list(PIECES[i]) for i in (0, 2, 3, 4)]
    assert smaller["unk_id"] == 0


def test_ids_before_the_unknown_token_stay():
    model = {"vocab": [["<s>", 0.0], ["<pad>", 0.0], ["<unk>", 0.0], ["a", -1.0]], "unk_id": 2}
    assert needed_pieces(model, [3], [3]) == {0, 1, 2, 3}


def test_unigram_bytes_stay():
    vocabulary = [["<unk>", 0.0], *([f"<0x{byte:02X}>", -5.0] for byte in range(256)), ["a", -1.0]]
    needed = needed_pieces({"vocab": vocabulary, "unk_id": 0, "byte_fallback": True}, [257], [257])
    assert needed == set(range(258))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ShrinkError, match="`tokenizer` must have a model among"):
        kind_of({"type": "Characters"})
