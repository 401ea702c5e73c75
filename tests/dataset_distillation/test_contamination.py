"""Rows that stand in a test set: found by text, by shingles and by embedding, and none missed."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from hf_shrink.dataset_distillation import contamination
from hf_shrink.dataset_distillation.contamination import find_contaminated
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.near_rows import directions, jaccard, sentences

TEST = Dataset.from_dict(
    {"text": ["How do I order a new card for my daughter?", "Where is my refund, please", "top up"]}
)


def rows(*texts):
    return Dataset.from_dict({"text": list(texts)})


def test_each_kind_is_found_once():
    dataset = rows(
        "Something else altogether",
        "how  do i order\na NEW card for my daughter?",
        "How do I order a new card for my daughter now?",
        "Money that should come back",
    )
    embeddings = np.eye(4)[[0, 1, 1, 2]]
    theirs = np.eye(4)[[1, 2, 3]]
    found = find_contaminated(dataset, TEST, text_columns=["text"], embeddings=embeddings, exclude_embeddings=theirs)
    assert found.exact.tolist() == [False, True, False, False]
    assert found.near.tolist() == [False, False, True, False]
    assert found.semantic.tolist() == [False, False, False, True]
    assert found.dropped.tolist() == [False, True, True, True]
    assert found.twins.tolist() == [-1, 0, 0, 1]
    alike = jaccard("how do i order a new card for my daughter now?", "how do i order a new card for my daughter?")
    assert found.similarity.tolist() == pytest.approx([0, 1, alike, 1])
    assert found.counts == {"exact": 1, "near": 1, "semantic": 1}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_texts_are_those_of_a_loop_over_all_pairs(threshold, monkeypatch):
    ours, theirs = sentences(120, seed=1), sentences(60, seed=2) + sentences(120, seed=1)[::7]
    theirs = [text + (" card" if len(text) < 60 else "s") for text in theirs]
    alike = np.array([[jaccard(a, b) for b in theirs] for a in ours])
    monkeypatch.setattr(contamination, "BLOCK", 50)
    found = find_contaminated(rows(*ours), rows(*theirs), text_columns=["text"], near_threshold=threshold)
    assert found.dropped.any()
    assert found.dropped.tolist() == (alike.max(axis=1) >= threshold).tolist()
    near = found.near
    assert found.twins[near].tolist() == alike.argmax(axis=1)[near].tolist()
    np.testing.assert_allclose(found.similarity[near], alike.max(axis=1)[near], rtol=1e-6)


def test_embeddings_alone_suffice():
    ours, theirs = directions(100, seed=1), directions(100, seed=1)[::9]
    found = find_contaminated(
        Dataset.from_dict({"n": range(100)}),
        Dataset.from_dict({"n": range(12)}),
        embeddings=ours,
        exclude_embeddings=theirs,
    )
    wanted = (ours @ theirs.T).max(axis=1) >= contamination.SEMANTIC
    assert found.dropped.tolist() == wanted.tolist()
    assert found.dropped.sum() >= 12


def test_pairs_are_compared_as_a_whole():
    pair = {"premise": ["A dog runs in the park", "A cat sleeps"], "hypothesis": ["An animal moves", "It is awake"]}
    ours = {"premise": ["A dog runs in the park", "a cat sleeps"], "hypothesis": ["Nobody is there", "it is awake"]}
    found = find_contaminated(Dataset.from_dict(ours), Dataset.from_dict(pair), text_columns=["premise", "hypothesis"])
    assert found.exact.tolist() == [False, True]
    assert not found.near.any()


def test_several_test_sets_are_counted_through():
    ours = rows("top  up", "nothing of it", "A second set!")
    second = rows("unrelated words", "a second set!")
    for exclude in ([TEST, second], {"a": TEST, "b": second}, DatasetDict({"a": TEST, "b": second})):
        assert find_contaminated(ours, exclude, text_columns=["text"]).twins.tolist() == [2, -1, 4]


def test_words_and_empty_cells_are_read():
    ours = Dataset.from_dict({"tokens": [["Where", "is", "my"], None, ["x", None]]})
    found = find_contaminated(ours, Dataset.from_dict({"tokens": [["where", "is", "MY"]]}), text_columns=["tokens"])
    assert found.exact.tolist() == [True, False, False]


def test_what_swallows_everything_is_refused():
    with pytest.raises(ShrinkError, match="`exclude` must leave some rows, but all 3 stand in it.*'exact': 3"):
        find_contaminated(TEST, TEST, text_columns=["text"])


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exclude": "squad"}, "`exclude` must be a Dataset, got str"),
        ({"exclude": [TEST, 3]}, "`exclude.1.` must be a Dataset, got int"),
        ({"exclude": TEST.select([])}, "`exclude` must hold rows, got none"),
        ({"exclude": []}, "`exclude` must hold rows, got none"),
        (
            {"exclude": TEST.rename_column("text", "t")},
            "`exclude` must have the text's columns .'text'., but .'text'. are",
        ),
        ({"text_columns": ["t"]}, "`dataset` must have the text's columns"),
        ({"text_columns": ["label"]}, "`dataset` must hold text to be compared by it, but 'label' holds int64"),
        ({"text_columns": []}, "`text_columns` must name a column where no embeddings are given"),
        ({"near_threshold": 0}, "`near_threshold` must be in .0, 1., got 0"),
        ({"semantic_threshold": float("nan")}, "`semantic_threshold` must be in"),
        ({"embeddings": EYE}, "`exclude_embeddings` must be given too"),
        ({"exclude_embeddings": EYE}, "`embeddings` must be given too"),
        ({"embeddings": EYE[:2], "exclude_embeddings": EYE}, "`embeddings` must have one vector for each of the 3"),
        ({"embeddings": EYE, "exclude_embeddings": EYE[:2]}, "`exclude_embeddings` must have one vector for each of"),
        ({"embeddings": EYE, "exclude_embeddings": EYE[:, :2]}, "`exclude_embeddings` must have 3 dimensions"),
        (
            {"embeddings": EYE * [0, 1, 1], "exclude_embeddings": EYE},
            "`embeddings` must give each row a finite direction, but row 0 is zero",
        ),
        ({"embeddings": EYE, "exclude_embeddings": np.full((3, 3), np.inf)}, "`exclude_embeddings` must be finite"),
    ],
)
def test_bad_input_is_refused(change, said):
    ours = Dataset.from_dict({"text": ["a b", "c d", "e f"], "label": [0, 1, 0]})
    given = {"exclude": TEST, "text_columns": ["text"], **change}
    with pytest.raises(ShrinkError, match=said):
        find_contaminated(ours, given.pop("exclude"), **given)
