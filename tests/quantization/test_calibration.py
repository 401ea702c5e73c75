"""Calibration rows: every class with its share, lengths from end to end, never a label, the same ones every time."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from transformers import ViTImageProcessor

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions
from hf_shrink.quantization.calibration import (
    calibration_batches,
    choose_rows,
    class_quotas,
    require_calibration,
)
from hf_shrink.registry import Registry
from tests.architectures.models import tiny_model
from tests.models import WORDS, tiny_bert_classifier, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Calibration takes all")


def tickets(rows=200, classes=(0, 0, 0, 0, 0, 0, 1, 1, 2, 0)):
    """Texts of 1 to 20 words; a tenth of them in class 2."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 1 + i % 20)) for i in range(rows)]
    return Dataset.from_dict({"text": texts, "label": [classes[(i // 20) % len(classes)] for i in range(rows)]})


def draw(dataset, model=None, *, size=20, processing_class=..., **options):
    model = tiny_bert_classifier(num_hidden_layers=1) if model is None else model
    reader = tiny_tokenizer() if processing_class is ... else processing_class
    return calibration_batches(model, model, dataset, RowOptions(processing_class=reader, **options), size=size)


def token_rows(drawn):
    return [
        row[mask.bool()].tolist()
        for batch in drawn.batches
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


# ------------------------------------------------------------------ which rows
@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([60, 30, 10], 10, [6, 3, 1]),
        ([98, 1, 1], 10, [8, 1, 1]),  # a rare class is not lost, and the common one gives the rows
        ([50, 50], 3, [2, 1]),
        ([5, 3, 1], 2, [1, 1, 0]),  # more classes than rows: the common ones
        ([2, 2], 4, [2, 2]),
        ([1, 1000], 1001, [1, 1000]),
    ],
)
def test_classes_keep_their_shares(counts, size, expected):
    assert class_quotas(np.array(counts), size).tolist() == expected


def test_lengths_are_covered_within_each_class():
    random = np.random.default_rng(3)
    lengths = random.permutation(np.arange(400))
    strata = (lengths % 4 == 0).astype(np.int64)  # a quarter, of all lengths
    chosen = choose_rows(strata, lengths, 40, random)
    for own, count in ((0, 30), (1, 10)):
        ranks = np.searchsorted(np.sort(lengths[strata == own]), np.sort(lengths[chosen][strata[chosen] == own]))
        parts = ranks * count // (strata == own).sum()
        assert parts.tolist() == list(range(count))  # one row from each equal part, which chance alone would not give


def test_drawn_rows_hold_all_classes_and_lengths():
    data = tickets()
    drawn = draw(data, size=20)
    texts = [" ".join(tiny_tokenizer().convert_ids_to_tokens(row[1:-1])) for row in token_rows(drawn)]
    by_text = dict(zip(data["text"], data["label"], strict=True))
    assert Counter(by_text[text] for text in texts) == {0: 14, 1: 4, 2: 2}
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] <= 2
    assert lengths[-1] >= 19
    assert drawn.record["classes_by"] == "label"
    assert drawn.record["tokens"]["max"] == lengths[-1] + 2


def test_the_same_rows_every_time_and_others_with_another_seed():
    data = tickets()
    first, again, other = draw(data), draw(data), draw(data, seed=1)
    swapped = draw(data.select_columns(["label", "text"]))
    assert first.record == again.record == swapped.record
    assert first.record["fingerprint"] != other.record["fingerprint"]
    for one, two in zip(first.batches, again.batches, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert json.loads(json.dumps(first.record)) == first.record


def test_the_fingerprint_is_of_the_tokens():
    drawn = draw(Dataset.from_dict({"input_ids": [[2, 7, 3]], "attention_mask": [[1, 1, 1]]}))
    digest = hashlib.sha256()
    for name, values in (("attention_mask", [1, 1, 1]), ("input_ids", [2, 7, 3])):
        digest.update(f"{name} (1, 3) torch.int64".encode() + np.array(values, np.int64).tobytes())
    assert drawn.record["fingerprint"] == digest.hexdigest()


@pytest.mark.filterwarnings("default:Calibration takes all")
def test_of_too_few_rows_all_are_taken_and_it_is_told():
    with pytest.warns(UserWarning, match="Calibration takes all 20 rows that there are, where 256 were"):
        drawn = draw(tickets(20), size=256)
    assert drawn.record["rows"] == len(token_rows(drawn)) == 20


def test_batches_hold_rows_of_similar_length_and_come_in_no_order():
    batches = draw(tickets(), size=100, batch_size=10).batches
    padding = sum((batch["attention_mask"] == 0).sum().item() for batch in batches)
    assert padding < 0.15 * sum(batch["attention_mask"].numel() for batch in batches)
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))


# ------------------------------------------------------------------ never a label
@pytest.mark.parametrize(
    ("head", "labels"),
    [
        ("SequenceClassification", {"labels": [0, 1] * 3}),
        ("SequenceClassification", {"label": [0, 1] * 3}),
        ("QuestionAnswering", {"start_positions": [0] * 6, "end_positions": [1] * 6}),
    ],
)
def test_no_label_leaks_from_tokenised_rows(head, labels):
    rows = Dataset.from_dict({**tiny_tokenizer()(WORDS[:6]), **labels})
    for batch in draw(rows, tiny_model("bert", head), size=6).batches:
        assert {"input_ids", "attention_mask"} <= set(batch) <= {"input_ids", "attention_mask", "token_type_ids"}


def test_what_the_model_does_not_take_stays_out():
    rows = Dataset.from_dict({"input_ids": [[2, 5, 3]], "attention_mask": [[1] * 3], "token_type_ids": [[0] * 3]})
    (batch,) = draw(
        rows, tiny_model("distilbert", "SequenceClassification"), processing_class=tiny_tokenizer()
    ).batches
    assert set(batch) == {"input_ids", "attention_mask"}


# ------------------------------------------------------------------ every task
def words(rows=40):
    tokens = [["my", "card", "is"]] * (rows - 2) + [["cash", "top"], ["pin", "new"]]
    tags = [[0, 0, 1]] * (rows - 2) + [[0, 2], [0, 2]]
    return Dataset.from_dict({"tokens": tokens, "ner_tags": tags})


def answers(rows=40):
    spans = [{"text": ["card"], "answer_start": [3]}] * rows
    return Dataset.from_dict({"question": ["where"] * rows, "context": ["my card is lost"] * rows, "answers": spans})


def pairs(rows=40):
    return Dataset.from_dict({"premise": ["my card"] * rows, "hypothesis": ["is lost"] * rows, "label": [0, 1] * 20})


@pytest.mark.parametrize(
    ("family", "head", "data", "by"),
    [
        ("bert", "TokenClassification", words, "ner_tags"),
        ("bert", "QuestionAnswering", answers, None),
        ("bert", "SequenceClassification", pairs, "label"),
        ("bert", "MaskedLM", tickets, None),
        ("llama", "CausalLM", tickets, None),
        ("bert", "", tickets, None),
    ],
)
def test_rows_of_every_task_run_through_the_model(family, head, data, by):
    model = tiny_model(family, head)
    drawn = draw(data(), model, size=16, batch_size=4)
    assert drawn.record["rows"] == 16
    assert drawn.record["classes_by"] == by
    with torch.no_grad():
        for batch in drawn.batches:
            assert "labels" not in batch
            model(**batch)


def test_a_rare_tag_is_among_the_rows():
    drawn = draw(words(), tiny_model("bert", "TokenClassification"), size=10)
    cash = tiny_tokenizer().convert_tokens_to_ids(["cash", "pin"])
    assert sum(bool(set(cash) & set(row)) for row in token_rows(drawn)) == 1  # 2 of 40 rows have it


@pytest.mark.parametrize(
    "feature", [List(ClassLabel(names=["a", "b", "c"])), List(Value("float32"))], ids=["ids", "multi-hot"]
)
def test_a_rare_label_of_several_is_among_the_rows(feature):
    ids = isinstance(feature.feature, ClassLabel)
    common, rare = ([0, 1], [0, 2]) if ids else ([1.0, 1.0, 0.0], [1.0, 0.0, 1.0])
    features = Features({"text": Value("string"), "label": feature})
    data = Dataset.from_dict({"text": ["help"] * 39 + ["pin"], "label": [common] * 39 + [rare]}, features=features)
    model = tiny_bert_classifier(num_hidden_layers=1, problem_type="multi_label_classification")
    assert [2, tiny_tokenizer().convert_tokens_to_ids("pin"), 3] in token_rows(draw(data, model, size=8))


def test_pictures():
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(12)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"image": pixels, "label": [0] * 9 + [1] * 3}, features=features)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    drawn = draw(data, tiny_model("vit"), size=4, processing_class=processor)
    (batch,) = drawn.batches
    assert set(batch) == {"pixel_values"}
    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    assert drawn.record["tokens"] is None
    assert drawn.record["classes_by"] == "label"


def test_rows_of_a_language_model_are_cut():
    model = tiny_model("llama", max_position_embeddings=4096)
    long = Dataset.from_dict({"text": [" ".join(WORDS * 60)] * 2})
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 100_000
    assert draw(long, model, size=2, processing_class=tokenizer).record["tokens"]["max"] == 512
    longer = draw(long, model, size=2, processing_class=tokenizer, max_length=700)
    assert longer.record["tokens"]["max"] == 700


def test_a_text_beside_a_label_that_is_text_needs_no_name():
    data = Dataset.from_dict({"message": ["my card", "help"] * 10, "intent": ["lost", "other"] * 10})
    drawn = draw(data, size=4, label_column="intent")
    assert drawn.record["classes_by"] == "intent"


# ------------------------------------------------------------------ what is refused
def test_bad_rows_are_refused():
    for data, message in (
        (tickets().select([]), "`calibration_dataset` must hold at least 1 row, got 0"),
        (tickets().to_iterable_dataset(), "`dataset` must have a length, got a stream"),
        (tickets().remove_columns("text"), "`text_column` must be given, because none"),
    ):
        with pytest.raises(ShrinkError, match=message):
            draw(data)
    with pytest.raises(ShrinkError, match="`label_column` must be one of .*, got 'intent'"):
        draw(tickets(), label_column="intent")
    with pytest.raises(ShrinkError, match="`calibration_size` must be at least 1, got 0"):
        draw(tickets(), size=0)


def test_a_calibrated_method_without_rows_is_refused():
    methods = Registry("method", "tests")
    methods._loaded = True
    methods.add("dynamic", paper="https://", calibrated=False)(len)
    methods.add("static", paper="https://", calibrated=True)(len)
    with pytest.raises(ShrinkError, match=r"`calibration_dataset` must be given for static.*one of \['dynamic'\]"):
        require_calibration(methods["static"], None, ["dynamic"])
    require_calibration(methods["dynamic"], None, ["dynamic"])
    require_calibration(methods["static"], tickets(), ["dynamic"])
