"""Duplicates as users find and drop them."""

import json
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value

import hf_shrink
from hf_shrink import deduplicate, find_duplicates
from hf_shrink.errors import ShrinkError

LONG = "I would like to know when the money that I sent to my sister last week will arrive"
TEXTS = ["How do I order a card?", "  how do I ORDER a card? ", f"{LONG} there", "Nothing alike", f"{LONG} here", ""]
FEATURES = Features(
    {"text": Value("string"), "label": ClassLabel(names=["card", "money", "other"]), "spans": List(Value("int64"))}
)


@pytest.fixture
def dataset():
    columns = {"text": TEXTS, "label": [0, 0, 1, 2, 1, 2], "spans": [[1], [], [2, 3], [4], [5], []]}
    return Dataset.from_dict(columns, features=FEATURES)


def test_every_column_of_the_rows_that_stay_stays(dataset):
    dataset.info.description = "Questions to a bank."
    small = deduplicate(dataset, threshold=0.8)
    assert small.features == FEATURES
    assert small.to_dict() == dataset.select([0, 2, 3, 5]).to_dict()
    assert small._indices is None  # no slow mapping of indices
    assert small.info.description == (
        "Questions to a bank.\nDeduplicated with hf_shrink: 2 of 6 rows were left out for their jaccard similarity of "
        "0.8 or more to one of the 4 that stayed."
    )
    assert small._fingerprint == deduplicate(dataset, threshold=0.8)._fingerprint
    assert dataset.info.description == "Questions to a bank."


def test_a_method_is_chosen_by_name(dataset):
    assert find_duplicates(dataset, "exact").removed.tolist() == [1]
    assert find_duplicates(dataset, "jaccard", 0.8).removed.tolist() == [1, 4]
    assert find_duplicates(dataset, "minhash", 0.8).removed.tolist() == [1, 4]
    vectors = np.eye(6)[[0, 1, 2, 3, 4, 3]]
    assert find_duplicates(dataset, "semantic", embeddings=vectors).removed.tolist() == [5]
    assert "equal text" in find_duplicates(dataset, "exact").sentence


def test_the_format_is_kept(dataset):
    small = deduplicate(dataset.with_format("numpy", columns=["label"]), "exact")
    assert small.format["type"] == "numpy"
    assert small[0]["label"] == 0


def test_where_labels_contradict_each_other_it_is_said(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_duplicates(dataset, threshold=0.8)
    odd = dataset.remove_columns("label").add_column("label", [0, 2, 1, 2, 1, 2])
    with pytest.warns(UserWarning, match="1 of 2 duplicates bear another label than the row that stands for them"):
        found = find_duplicates(odd, threshold=0.8)
    assert found.contradicting.tolist() == [True, False]
    with pytest.warns(UserWarning, match="2 of 2 duplicates"):
        find_duplicates(dataset, threshold=0.8, label_column="spans")
    with pytest.warns(UserWarning, match="1 of 1"):
        deduplicate(odd, "exact")


def test_the_report_is_read_again(dataset, tmp_path):
    found = find_duplicates(dataset, threshold=0.8)
    report = json.loads(found.to_json(tmp_path / "duplicates.json").read_text())
    assert (report["rows"], report["kept"], report["removed"]) == (6, 4, 2)
    assert [(pair["removed"], pair["kept"]) for pair in report["duplicates"]] == [(1, 0), (4, 2)]
    assert report["duplicates"][0]["similarity"] == 1
    assert [example["removed"] for example in report["examples"]] == [4, 1]  # the least alike first
    assert report["examples"][0]["kept_text"] == TEXTS[2]
    assert len(found) == 2


def test_the_table_shows_the_pairs(dataset):
    lines = find_duplicates(dataset, threshold=0.8).table().splitlines()
    assert lines[0].startswith("Deduplicated with hf_shrink: 2 of 6 rows")
    assert (
        lines[4] == f"| {find_duplicates(dataset, threshold=0.8).similarity[1]:.3f} | 4: {TEXTS[4]} | 2: {TEXTS[2]} |"
    )
    assert lines[5].startswith("| 1.000 | 1: ")
    assert find_duplicates(dataset.select([0, 3])).table().endswith("one of the 2 that stayed.")
    odd = Dataset.from_dict({"text": ["a|b\nc"] * 2})
    assert find_duplicates(odd).table().splitlines()[-1] == "| 1.000 | 1: a\\|b c | 0: a\\|b c |"


def test_pairs_are_compared_as_a_whole():
    pairs = Dataset.from_dict(
        {"premise": [LONG, LONG, LONG], "hypothesis": ["It is sent.", "Nobody was.", "it is SENT."]}
    )
    assert find_duplicates(pairs, "exact").removed.tolist() == [2]
    assert find_duplicates(pairs, "exact", text_column="premise").removed.tolist() == [1, 2]


def test_words_are_compared_as_text():
    rows = Dataset.from_dict(
        {"tokens": [["New", "York"], ["new", "york"], ["York"]], "ner_tags": [[1, 1], [1, 1], [0]]}
    )
    assert find_duplicates(rows, "exact").removed.tolist() == [1]


def test_rows_without_text_have_no_text_in_the_report():
    rows = Dataset.from_dict({"n": [1, 2, 3]})
    found = find_duplicates(rows, "semantic", embeddings=np.eye(3)[[0, 1, 1]])
    assert found.removed.tolist() == [2]
    assert found.table().splitlines()[-1] == "| 1.000 | row 2 | row 1 |"


def test_embeddings_are_made_where_they_are_not_given(monkeypatch, dataset):
    asked = []

    def encode(rows, encoder, **more):
        asked.append((len(rows), encoder, more))
        return np.eye(6)[[0, 0, 1, 2, 3, 4]]

    monkeypatch.setattr("hf_shrink.dataset_distillation.encoder.encode", encode)
    assert find_duplicates(dataset, "semantic", encoder="a-model", text_column="text").removed.tolist() == [1]
    assert asked == [(6, "a-model", {"text_column": "text", "seed": 0})]


def stream(texts, labels):
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    return IterableDataset.from_generator(
        lambda: iter(rows), features=Features({"text": Value("string"), "label": Value("int64")})
    )


def test_a_stream_is_read_once_and_may_be_read_again():
    small = deduplicate(stream(TEXTS, range(6)), "exact", text_column="text")
    for _ in range(2):
        assert [row["label"] for row in small] == [0, 2, 3, 4, 5]
    assert small.features["label"] == Value("int64")


def test_a_stream_says_where_labels_contradict_each_other():
    small = deduplicate(stream(TEXTS, range(6)), "exact", text_column="text", label_column="label")
    with pytest.warns(UserWarning, match="1 duplicates in the stream bore another label"):
        list(small)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "minhash", "text_column": "text"}, "`method` must be \"exact\" for a stream, got 'minhash'"),
        ({"method": "exact"}, "`text_column` must name columns of the stream"),
        ({"method": "exact", "text_column": ["text", "t"]}, "`text_column` must name columns of the stream"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(given, said):
    with pytest.raises(ShrinkError, match=said):
        deduplicate(stream(TEXTS, range(6)), **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "minhasch"}, "`method` must be one of .*Did you mean 'minhash'"),
        ({"threshold": 0}, "`threshold` must be in .0, 1., got 0"),
        ({"threshold": float("nan")}, "`threshold` must be in"),
        ({"keep": "last"}, '`keep` must be "first" or "central", got \'last\''),
        ({"shingle": 3}, "`shingle` must be an option of the method, which has .'shingle_size', 'shingles'."),
        ({"text_column": "t"}, "`text_column` must be one of"),
        ({"text_column": "spans"}, "`dataset` must hold text to be compared by it, but 'spans' holds"),
        ({"label_column": "l"}, "`label_column` must be one of"),
        ({"embeddings": np.eye(6)}, "`embeddings` must be left out where texts are compared"),
        ({"method": "semantic", "embeddings": np.eye(5)}, "`embeddings` must have one row for each of the 6"),
        ({"method": "semantic", "embeddings": np.ones((6, 3))}, "`embeddings` must differ from row to row"),
        ({"method": "semantic", "embeddings": np.full((6, 2), np.nan)}, "`embeddings` must give each row a finite"),
    ],
)
def test_bad_input_is_refused(dataset, given, said):
    with pytest.raises(ShrinkError, match=said):
        find_duplicates(dataset, **given)


def test_rows_that_say_nothing_are_refused(dataset):
    with pytest.raises(ShrinkError, match="`dataset` must hold rows, got none"):
        find_duplicates(dataset.select([]))
    with pytest.raises(ShrinkError, match="`text_column` must hold text, but .'text'. is empty in all 2 rows"):
        find_duplicates(Dataset.from_dict({"text": ["", " \n"]}))
    with pytest.raises(ShrinkError, match="`text_column` must be given, because the rows are tokenised already"):
        find_duplicates(Dataset.from_dict({"input_ids": [[1, 2], [1, 2]]}))


def test_both_are_public():
    assert {"deduplicate", "find_duplicates"} <= set(hf_shrink.__all__) & set(hf_shrink.dataset_distillation.__all__)
