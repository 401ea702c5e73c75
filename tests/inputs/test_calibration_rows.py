"""Rows that a model is calibrated on: which, in what order, and what is refused before it runs."""

import pytest
import torch
from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from tests.architectures.models import tiny_model
from tests.models import tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "help", "where is the money", "top up failed please help me", "new pin", "transfer failed"]


def read(model, dataset, *, labelled=False, size=None, **options):
    options = RowOptions(processing_class=tiny_tokenizer(), **options)
    return read_rows(model, model, dataset, options, labelled=labelled, size=size)


def rows():
    return Dataset.from_dict({**tiny_tokenizer()(TEXTS), "labels": [0, 1, 2] * 2})


def test_a_collator_that_masks_at_random_masks_alike_in_every_pass():
    model = tiny_model("bert")
    data = read(model, Dataset.from_dict({"text": TEXTS}), labelled=True, seed=1)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, again = ([batch["input_ids"] for batch in data.batches()] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any((ids == 4).any() for ids in first)
    assert torch.equal(torch.rand(3), expected)  # and leaves the caller's generator alone


def test_rows_are_drawn_by_the_seed():
    model = tiny_bert_classifier()
    data = Dataset.from_dict({"input_ids": [[i] for i in range(5, 20)]})
    drawn = [read(model, data, size=6, seed=seed).rows["input_ids"][:] for seed in (0, 0, 1)]
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(read(model, data, size=100).rows) == 15


def test_raw_rows_need_no_label_unless_one_is_read():
    model = tiny_bert_classifier()
    data = Dataset.from_dict({"text": TEXTS, "label": ["a", "b", "c"] * 2})  # names that the model does not know
    assert len(read(model, data).rows) == len(TEXTS)
    with pytest.raises(ShrinkError, match="`label_column` must hold"):
        read(model, data, labelled=True)
    with pytest.raises(ShrinkError, match="`label_column` must be given, because none"):
        read(model, data.remove_columns("label"), labelled=True)


def test_a_label_that_the_model_lacks_is_refused_before_it_runs():
    with pytest.raises(ShrinkError, match="class ids in \\[0, 3\\)"):
        read(tiny_bert_classifier(), Dataset.from_dict({"text": TEXTS, "label": range(6)}), labelled=True)


def test_a_model_without_a_head_has_no_loss():
    with pytest.raises(ShrinkError, match="head with a loss"):
        read(tiny_model("bert", ""), rows(), labelled=True)


def test_no_rows_are_refused():
    with pytest.raises(ShrinkError, match="at least 1 row"):
        read(tiny_bert_classifier(), rows().select([]))
