import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image
from transformers import ViTImageProcessor

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import default_collator, row_batches, tokenize_rows
from tests.models import tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "where is the money", "cash please help me with a new pin"]
# [CLS] is 2 and [SEP] is 3; "my card is lost" are the first four words after the five special tokens.
IDS = [2, 5, 6, 7, 8, 3]


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


def raw(**columns):
    return Dataset.from_dict({"text": TEXTS, "label": [0, 2, 1], "id": ["a", "b", "c"], **columns})


def inputs_of(rows):
    return set(rows.column_names) - {"token_type_ids"}  # transformers 4 adds them


def test_text_and_label_are_found_and_the_rest_dropped(tokenizer):
    rows = tokenize_rows(raw(), tokenizer, task="single_label_classification")
    assert inputs_of(rows) == {"input_ids", "attention_mask", "labels"}
    assert rows[0]["input_ids"] == IDS
    assert rows["labels"][:] == [0, 2, 1]


def test_tokenizing_twice_changes_nothing(tokenizer):
    once = tokenize_rows(raw(), tokenizer, task="single_label_classification")
    twice = tokenize_rows(once, tokenizer, task="single_label_classification", max_length=4)
    assert twice[:] == once[:]


def test_tokenized_rows_lose_what_the_model_does_not_take(tokenizer):
    once = tokenize_rows(raw(), tokenizer, task="single_label_classification")
    mixed = once.rename_column("labels", "label").add_column("text", TEXTS).add_column("note", [1, 2, 3])
    for processing_class in (tokenizer, None):
        rows = tokenize_rows(mixed, processing_class, task="single_label_classification")
        assert inputs_of(rows) == {"input_ids", "attention_mask", "labels"}
        assert rows["labels"][:] == [0, 2, 1]


def test_tokenized_rows_keep_only_the_inputs_that_the_tokenizer_names(tokenizer):
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    data = Dataset.from_dict({"input_ids": [[2, 3]], "attention_mask": [[1, 1]], "token_type_ids": [[0, 0]]})
    assert set(tokenize_rows(data, tokenizer, task="masked_lm").column_names) == {"input_ids", "attention_mask"}


def test_max_length_counts_special_tokens(tokenizer):
    rows = tokenize_rows(raw(), tokenizer, task="single_label_classification", max_length=5)
    assert rows[0]["input_ids"] == [2, 5, 6, 7, 3]
    tokenizer.model_max_length = 4
    assert max(map(len, tokenize_rows(raw(), tokenizer, task="single_label_classification")["input_ids"])) == 4


def test_padding_that_a_tokenizer_file_fixes_is_left_out(tokenizer):
    tokenizer.backend_tokenizer.enable_padding(length=40)
    assert tokenize_rows(raw(), tokenizer, task="single_label_classification")[0]["input_ids"] == IDS


def test_pairs(tokenizer):
    data = Dataset.from_dict({"sentence1": ["my card"], "sentence2": ["is lost"], "label": [1]})
    rows = tokenize_rows(data, tokenizer, task="single_label_classification")
    assert rows[0]["input_ids"] == [2, 5, 6, 3, 7, 8, 3]


def test_missing_columns(tokenizer):
    with pytest.raises(ShrinkError, match=r"`label_column` must be one of \['text', 'label', 'id'\], got 'intent'"):
        tokenize_rows(raw(), tokenizer, task="single_label_classification", label_column="intent")
    with pytest.raises(ShrinkError, match="`text_column` must be filled in every row, but 'text' has an empty one"):
        tokenize_rows(raw(text=["a", None, "b"]), tokenizer, task="single_label_classification")


def test_raw_rows_need_a_tokenizer():
    with pytest.raises(ShrinkError, match="`processing_class` must be a tokenizer to read text, got NoneType"):
        tokenize_rows(raw(), None, task="single_label_classification")


def test_rows_without_labels(tokenizer):
    rows = tokenize_rows(Dataset.from_dict({"text": TEXTS}), tokenizer, task="single_label_classification")
    assert inputs_of(rows) == {"input_ids", "attention_mask"}


def test_names_instead_of_ids_are_refused(tokenizer):
    with pytest.raises(ShrinkError, match="`label_column` must hold class ids, but 'label' holds names.*align_labels"):
        tokenize_rows(raw(label=["x", "y", "z"]), tokenizer, task="single_label_classification")


def test_regression_labels_are_floats(tokenizer):
    rows = tokenize_rows(raw(label=[0, 3, 5]), tokenizer, task="regression")
    batch = default_collator(tokenizer, "regression")([rows[0], rows[1]])
    assert batch["labels"].tolist() == [0.0, 3.0]
    assert batch["labels"].dtype == torch.float32


def test_multi_label_rows_become_multi_hot(tokenizer):
    names = Features(text=Value("string"), labels=List(ClassLabel(names=["a", "b", "c"])))
    ids = Dataset.from_dict({"text": TEXTS, "labels": [[0, 2], [], [1]]}, features=names)
    hot = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    for data in (ids, Dataset.from_dict({"text": TEXTS, "labels": [[int(x) for x in row] for row in hot]})):
        rows = tokenize_rows(data, tokenizer, task="multi_label_classification")
        assert rows["labels"][:] == hot
        batch = default_collator(tokenizer, "multi_label_classification")([rows[i] for i in range(3)])
        assert batch["labels"].dtype == torch.float32
        assert tiny_bert_classifier(3, problem_type="multi_label_classification")(**batch).loss > 0


# ------------------------------------------------------------------ other tasks
def test_words_are_labelled_on_their_first_token():
    tokenizer = tiny_tokenizer(["card", "lost", "-"])  # "card-lost" is three tokens
    data = Dataset.from_dict({"tokens": [["lost", "card-lost", "card"], ["card"]], "ner_tags": [[1, 2, 0], [3]]})
    rows = tokenize_rows(data, tokenizer, task="token_classification")
    assert rows["labels"][:] == [[-100, 1, 2, -100, -100, 0, -100], [-100, 3, -100]]
    batch = default_collator(tokenizer, "token_classification")([rows[0], rows[1]])
    assert batch["labels"][1].tolist() == [-100, 3, *[-100] * 5]


def test_words_cut_off_take_their_labels_along():
    data = Dataset.from_dict({"tokens": [["card", "lost", "card"]], "ner_tags": [[1, 2, 0]]})
    rows = tokenize_rows(data, tiny_tokenizer(["card", "lost"]), task="token_classification", max_length=4)
    assert rows["labels"][:] == [[-100, 1, 2, -100]]


def test_words_and_labels_of_different_length_are_refused(tokenizer):
    data = Dataset.from_dict({"tokens": [["card", "lost"]], "ner_tags": [[1]]})
    with pytest.raises(ShrinkError, match="`label_column` must hold one label a word, got 1 for"):
        tokenize_rows(data, tokenizer, task="token_classification")


def test_answers_become_token_positions(tokenizer):
    context = "my card is lost"
    answers = [
        {"text": ["card is"], "answer_start": [3]},
        {"text": ["lost"], "answer_start": [11]},
        {"text": [], "answer_start": []},
    ]
    data = Dataset.from_dict({"question": ["where"] * 3, "context": [context] * 3, "answers": answers})
    rows = tokenize_rows(data, tokenizer, task="question_answering")
    # [CLS] where [SEP] my card is lost [SEP]
    assert rows["start_positions"][:] == [4, 6, 0]
    assert rows["end_positions"][:] == [5, 6, 0]
    assert "labels" not in rows.column_names
    cut = tokenize_rows(data, tokenizer, task="question_answering", max_length=7)  # "lost" is gone
    assert (cut["start_positions"][:], cut["end_positions"][:]) == ([4, 0, 0], [5, 0, 0])


def test_causal_labels_are_the_tokens_and_end_of_text_stays(tokenizer):
    tokenizer.pad_token = "[SEP]"  # as GPT-2 users do: padding doubles as the end of text
    rows = tokenize_rows(raw(), tokenizer, task="causal_lm")
    assert rows[0]["labels"] == rows[0]["input_ids"] == IDS
    batch = default_collator(tokenizer, "causal_lm")([rows[0], rows[2]])
    assert batch["labels"][0].tolist() == [*IDS, *[-100] * 4]


def test_masked_language_models_get_their_labels_from_the_collator(tokenizer):
    rows = tokenize_rows(raw(), tokenizer, task="masked_lm")
    assert inputs_of(rows) == {"input_ids", "attention_mask"}
    batch = default_collator(tokenizer, "masked_lm")([rows[0], rows[1]])
    assert batch["labels"].shape == batch["input_ids"].shape


def test_summaries_are_tokenized_as_labels(tokenizer):
    data = Dataset.from_dict({"document": TEXTS[:2], "summary": ["card lost", "my money please"]})
    rows = tokenize_rows(data, tokenizer, task="seq2seq_lm")
    assert inputs_of(rows) == {"input_ids", "attention_mask", "labels"}
    assert rows[0]["labels"] == [2, 6, 8, 3]
    batch = default_collator(tokenizer, "seq2seq_lm")([rows[0], rows[1]])
    assert batch["labels"][0].tolist() == [2, 6, 8, 3, -100]


def test_images_are_prepared_when_they_are_read():
    pictures = [Image.fromarray(np.full((6, 6), shade, np.uint8)) for shade in (0, 255)]
    data = Dataset.from_dict({"image": pictures, "label": [1, 0], "id": [7, 8]})
    processor = ViTImageProcessor(size={"height": 4, "width": 4}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    rows = tokenize_rows(data, processor, task="image_classification")
    (batch,) = row_batches(rows, default_collator(processor, "image_classification"), 2)
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    assert batch["pixel_values"].amin((1, 2, 3)).tolist() == pytest.approx([-1, 1], abs=1e-6)
    assert batch["labels"].tolist() == rows["labels"][:] == [1, 0]
    with pytest.raises(ShrinkError, match="`processing_class` must be an image processor"):
        tokenize_rows(data, tiny_tokenizer(), task="image_classification")


def test_raw_audio_is_refused(tokenizer):
    with pytest.raises(ShrinkError, match="`dataset` must hold `input_values` or `input_features`"):
        tokenize_rows(raw(), tokenizer, task="audio_classification")


# ------------------------------------------------------------------ batches
def test_batches_keep_the_order_and_the_rest(tokenizer):
    rows = tokenize_rows(raw(), tokenizer, task="single_label_classification")
    batches = list(row_batches(rows, default_collator(tokenizer, "single_label_classification"), 2))
    assert [batch["labels"].tolist() for batch in batches] == [[0, 2], [1]]
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 6), (1, 10)]


def test_padding_does_not_change_the_logits(tokenizer):
    model = tiny_bert_classifier()
    rows = tokenize_rows(raw(), tokenizer, task="single_label_classification")
    collator = default_collator(tokenizer, "single_label_classification")
    with torch.no_grad():
        single = torch.cat([model(**batch).logits for batch in row_batches(rows, collator, 1)])
        padded = torch.cat([model(**batch).logits for batch in row_batches(rows, collator, 3)])
    assert (single - padded).abs().max() < 1e-5
    assert single.std() > 0.1


def test_batch_size_is_checked(tokenizer):
    with pytest.raises(ShrinkError, match="`batch_size` must be at least 1, got 0"):
        next(row_batches(raw(), default_collator(tokenizer, "regression"), 0))


def test_tokenizer_without_padding_is_refused(tokenizer):
    tokenizer.pad_token = None
    with pytest.raises(ShrinkError, match=r"must have a padding token .*tokenizer.pad_token = tokenizer.eos_token"):
        default_collator(tokenizer, "causal_lm")


def test_unknown_task_is_refused(tokenizer):
    for call in (lambda: default_collator(tokenizer, "ner"), lambda: tokenize_rows(raw(), tokenizer, task="ner")):
        with pytest.raises(ShrinkError, match="`task` must be one of"):
            call()
