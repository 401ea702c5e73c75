"""Keys: the same wherever a row stands and however it is padded, another for anything else that the teacher reads."""

import pytest
import torch
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding

from hf_shrink.distillation.row_keys import KEY_BYTES, RowReader
from hf_shrink.distillation.teacher import Teacher, forward_parameters
from hf_shrink.distillation.views import view_of
from hf_shrink.inputs.rows import row_batches
from tests.distillation.tasks import TASK_CASES
from tests.models import tiny_bert_classifier, tiny_tokenizer


def reader(task="single_label_classification"):
    model = TASK_CASES[task].student()
    return RowReader(task, forward_parameters(model), model.config)


def keys(read, rows, collator, batch_size=8):
    return [key for batch in row_batches(rows, collator, batch_size) for key in read.keys(batch)]


@pytest.mark.parametrize("task", TASK_CASES)
def test_batches_and_order_make_no_difference(task):
    case, read = TASK_CASES[task], reader(task)
    whole = keys(read, case.rows(), case.collator())
    assert {len(key) for key in whole} == {KEY_BYTES}
    assert len(set(whole)) == (7 if task == "masked_lm" else 8)  # two of its rows are one word, masked
    assert keys(read, case.rows(), case.collator(), 1) == whole
    assert keys(read, case.rows().select(range(7, -1, -1)), case.collator(), 3) == whole[::-1]


@pytest.mark.parametrize("task", TASK_CASES)
def test_the_tensors_are_those_that_a_teacher_reads(task):
    case, model = TASK_CASES[task], TASK_CASES[task].teacher()
    batch = case.collator()([dict(row) for row in case.rows()])
    own = Teacher(model, view_of(task, model.config, pooling="mean", hide_padding=True)).own_inputs(batch)
    found = reader(task).inputs(batch)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [{"padding": "longest"}, {"padding": "max_length"}, {"pad_to_multiple_of": 8}])
def test_padding_makes_no_difference(side, padding):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    rows = TASK_CASES["single_label_classification"].rows()
    expected = keys(reader(), rows, TASK_CASES["single_label_classification"].collator())
    assert keys(reader(), rows, DataCollatorWithPadding(tokenizer, **padding)) == expected


def batch(**changes):
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask, **changes}


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_the_width_of_integers_makes_no_difference(dtype):
    narrow = batch()["attention_mask"].to(dtype)
    assert reader().keys(batch(attention_mask=narrow)) == reader().keys(batch())


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids"])
def test_each_tensor_counts(name):
    changed = batch()[name].clone()
    changed[0, 1] += 1
    changed[1, 3] += 1  # padding
    (one, two), (other, same) = reader().keys(batch()), reader().keys(batch(**{name: changed}))
    assert one != other
    assert two == same


def test_a_missing_tensor_and_a_hole_in_the_mask_count():
    less = {name: tensor for name, tensor in batch().items() if name != "token_type_ids"}
    assert not set(reader().keys(less)) & set(reader().keys(batch()))
    hole = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 0]])
    (one, two), (other, same) = reader().keys(batch()), reader().keys(batch(attention_mask=hole))
    assert one != other
    assert two == same


def test_labels_and_what_the_teacher_does_not_know_do_not_count():
    more = batch(labels=torch.tensor([0, 1]), start_positions=torch.tensor([0, 1]), entity_ids=torch.ones(2, 4))
    assert reader().keys(more) == reader().keys(batch())


def test_pixels_count_whole_and_in_single_precision():
    read = reader("image_classification")
    pixels = torch.randn(2, 3, 8, 8)
    assert read.keys({"pixel_values": pixels.double()}) == read.keys({"pixel_values": pixels})
    changed = pixels.clone()
    changed[1, 2, 7, 7] += 1e-6
    same, other = read.keys({"pixel_values": changed})
    assert (same, other) != tuple(read.keys({"pixel_values": pixels}))
    assert same == read.keys({"pixel_values": pixels})[0]


def test_a_picture_as_high_as_the_text_is_long_is_no_text():
    model = tiny_bert_classifier()
    read = RowReader("single_label_classification", frozenset({"pixel_values", "attention_mask"}), model.config)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    pixels = torch.randn(2, 3, 4, 4)
    changed = pixels.clone()
    changed[0, 2] += 1
    first = {"attention_mask": mask, "pixel_values": pixels}
    assert read.keys(first)[0] != read.keys({**first, "pixel_values": changed})[0]


# ------------------------------------------------------------------ encoder-decoders
def targets(*labels):
    ids = torch.tensor([[5, 6, 3]] * len(labels))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(labels)}


def test_the_longest_target_of_a_batch_has_the_key_it_has_beside_a_longer_one():
    read = reader("seq2seq_lm")
    alone = read.keys(targets([7, 8, 3]))
    assert read.keys(targets([7, 8, 3, -100, -100], [7, 8, 9, 9, 3]))[:1] == alone
    assert read.keys(targets([7, 9, 3])) != alone


def test_decoder_inputs_of_a_collator_are_the_ones_made_of_the_labels():
    case, read = TASK_CASES["seq2seq_lm"], reader("seq2seq_lm")
    made = DataCollatorForSeq2Seq(tiny_tokenizer(), model=case.student())
    assert "decoder_input_ids" in made([dict(case.rows()[0])])
    assert keys(read, case.rows(), made, 3) == keys(read, case.rows(), case.collator(), 8)


def test_decoder_inputs_without_labels_end_before_their_padding():
    read = reader("seq2seq_lm")
    ids = torch.tensor([[5, 6, 3]])
    short = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": torch.tensor([[0, 7, 8]])}
    long = {**short, "decoder_input_ids": torch.tensor([[0, 7, 8, 0, 0]])}
    assert read.keys(short) == read.keys(long)
    masked = {**long, "decoder_attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}
    assert read.keys(masked) != read.keys({**short, "decoder_attention_mask": torch.tensor([[1, 1, 1]])})
