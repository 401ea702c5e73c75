import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import Columns, find_columns


def rows(**kinds):
    """No rows, with the columns named: "c" is a class, "s" a text, "f" a float, "i" an integer, [..] a list."""
    inner = {"c": ClassLabel(names=["a", "b"]), "s": Value("string"), "f": Value("float32"), "i": Value("int64")}
    features = {name: List(inner[kind[0]]) if isinstance(kind, list) else inner[kind] for name, kind in kinds.items()}
    return Dataset.from_dict({name: [] for name in kinds}, features=Features(features))


@pytest.mark.parametrize(
    ("kinds", "text", "label"),
    [
        ({"text": "s", "label": "c"}, ("text",), "label"),
        ({"idx": "i", "sentence": "s", "label": "i"}, ("sentence",), "label"),
        ({"sentence1": "s", "sentence2": "s", "label": "f"}, ("sentence1", "sentence2"), "label"),
        ({"question": "s", "sentence": "s", "label": "c"}, ("question", "sentence"), "label"),
        ({"premise": "s", "hypothesis": "s", "label": "c"}, ("premise", "hypothesis"), "label"),
        ({"text": "s", "label": "c", "label_text": "s"}, ("text",), "label"),
        ({"tweet": "s", "feeling": "c"}, ("tweet",), "feeling"),
        ({"tokens": ["s"], "ner_tags": ["c"]}, ("tokens",), "ner_tags"),
        ({"text": "s", "labels": ["f"]}, ("text",), "labels"),
        ({"document": "s", "summary": "s"}, ("document",), "summary"),
        ({"text": "s", "score": "f", "label": "c"}, ("text",), "label"),
        ({"text": "s"}, ("text",), None),
        ({"text": "s", "input_ids": ["i"], "label": "c"}, (), "label"),
    ],
)
def test_found(kinds, text, label):
    assert find_columns(rows(**kinds)) == Columns(text, label)


def test_named_columns_win():
    data = rows(text="s", note="s", label="c", other="c")
    assert find_columns(data, text_column="note", label_column="other") == Columns(("note",), "other")
    assert find_columns(data, text_column=["note", "text"]).text == ("note", "text")
    assert find_columns(data, with_label=False).label is None


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"a": "s", "b": "s", "label": "c"}, r"`text_column` must be given, because several fit: \['a', 'b'\]"),
        ({"text": "s", "sentence": "s"}, r"`text_column` must be given, because several fit: \['text', 'sentence'\]"),
        ({"length": "i", "label": "c"}, r"`text_column` must be given, because none of \['length', 'label'\]"),
        ({"text": "s", "coarse": "c", "fine": "c"}, r"`label_column` must be given.*\['coarse', 'fine'\]"),
        ({"text": "s", "label": "c", "labels": "c"}, r"`label_column` must be given.*\['label', 'labels'\]"),
    ],
)
def test_ambiguity_and_absence_are_refused_with_candidates(kinds, message):
    with pytest.raises(ShrinkError, match=message):
        find_columns(rows(**kinds))


def test_missing_label_is_refused_where_one_is_needed():
    with pytest.raises(ShrinkError, match=r"`label_column` must be given, because none of \['text', 'kind'\]"):
        find_columns(rows(text="s", kind="i"), needs_label=True)


def test_named_column_that_does_not_exist():
    data = rows(text="s", label="c")
    with pytest.raises(ShrinkError, match=r"`label_column` must be one of \['text', 'label'\], got 'intent'"):
        find_columns(data, label_column="intent")
    with pytest.raises(ShrinkError, match=r"`text_column` must be one of \['text', 'label'\], got 'body'"):
        find_columns(data, text_column=["text", "body"])
