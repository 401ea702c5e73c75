"""A transfer set: the label is missing in the shape of each task, and such rows are heard from the teacher alone."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from PIL import Image
from transformers import ViTImageProcessor

from hf_shrink.distillation.transfer import REFUSED, with_unlabelled
from hf_shrink.distillation.views import view_of
from hf_shrink.errors import ShrinkError
from tests.distillation.tasks import TASK_CASES, TEXTS
from tests.models import tiny_tokenizer

MARKED = {
    "single_label_classification": -100,
    "multi_label_classification": [-100.0] * 3,
    "token_classification": [-100] * 4,
    "audio_classification": -100,
    "image_classification": -100,
}


@pytest.mark.parametrize("task", MARKED)
def test_an_added_row_is_heard_and_has_no_label(task):
    case = TASK_CASES[task]
    model, rows = case.teacher(), case.rows()
    joined = with_unlabelled(rows, rows.select([4, 1]), model)
    assert len(joined) == 10
    assert [dict(row) for row in joined.select(range(8))] == [dict(row) for row in rows]
    inputs = next(name for name in rows.column_names if name.startswith(("input_", "pixel_")))
    assert joined[8][inputs] == rows[4][inputs]
    assert joined[8]["labels"] == MARKED[task]
    reading = view_of(task, model.config, pooling="mean", hide_padding=True).read(case.collator()([joined[8]]))
    assert reading.heard.all()
    assert not reading.labelled.any()


def test_raw_rows_of_another_make_are_tokenised_and_their_labels_dropped():
    rows = Dataset.from_dict({"sentence": TEXTS, "label": [0, 1, 2, 0, 1, 2, 0, 1]}).cast_column(
        "label", ClassLabel(3)
    )
    more = Dataset.from_dict({"utterance": ["new pin", "cash"], "labels": ["greeting", "farewell"]})
    model = TASK_CASES["single_label_classification"].teacher()
    joined = with_unlabelled(
        rows, more, model, processing_class=tiny_tokenizer(), text_column="sentence", max_length=3
    )
    assert list(joined["labels"]) == [0, 1, 2, 0, 1, 2, 0, 1, -100, -100]
    assert joined[8]["input_ids"] == tiny_tokenizer()("new pin", truncation=True, max_length=3)["input_ids"]


def test_words_without_tags_are_tokenised_as_those_with():
    words = [text.split() for text in TEXTS]
    rows = Dataset.from_dict({"tokens": words, "ner_tags": [[0] * len(row) for row in words]})
    model = TASK_CASES["token_classification"].teacher()
    joined = with_unlabelled(rows, rows.remove_columns("ner_tags"), model, processing_class=tiny_tokenizer())
    assert joined["input_ids"][8:] == joined["input_ids"][:8]
    assert {label for row in joined["labels"][8:] for label in row} == {-100}
    assert [len(row) for row in joined["labels"]] == [len(ids) for ids in joined["input_ids"]]


def test_images_are_still_prepared_as_they_are_read():
    pictures = [Image.fromarray(np.full((8, 8, 3), 20 * i, dtype=np.uint8)) for i in range(4)]
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    rows = Dataset.from_dict({"image": pictures, "label": [0, 1, 2, 0]})
    more = Dataset.from_dict({"image": pictures[::-1]})
    model = TASK_CASES["image_classification"].teacher()
    joined = with_unlabelled(rows, more, model, processing_class=processor)
    assert joined[7]["labels"] == -100
    np.testing.assert_array_equal(joined[7]["pixel_values"], joined[0]["pixel_values"])
    with pytest.raises(ShrinkError, match="`transfer_dataset` must have the inputs of the training rows"):
        with_unlabelled(rows, more.rename_column("image", "img"), model, processing_class=processor)


def test_training_rows_without_labels_stay_without():
    rows = Dataset.from_dict({"text": TEXTS})
    model = TASK_CASES["single_label_classification"].teacher()
    joined = with_unlabelled(rows, rows, model, processing_class=tiny_tokenizer())
    assert len(joined) == 16
    assert "labels" not in joined.column_names


@pytest.mark.parametrize("task", REFUSED)
def test_a_task_without_a_sign_for_a_missing_label_says_why(task):
    case = TASK_CASES[task]
    with pytest.raises(ShrinkError, match=f"`transfer_dataset` must be None for {task}, got .*: {REFUSED[task][:20]}"):
        with_unlabelled(case.rows(), case.rows(), case.teacher())


def test_a_regression_on_images_is_a_regression():
    case = TASK_CASES["image_classification"]
    with pytest.raises(ShrinkError, match="every number is a target"):
        with_unlabelled(case.rows(), case.rows(), case.teacher(num_labels=1))
