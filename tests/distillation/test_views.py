"""What a batch teaches, read before any model runs."""

import torch
from transformers import BertConfig

from hf_shrink.distillation.views import view_of


def read(task, batch):
    return view_of(task, BertConfig(num_labels=3), pooling="mean", hide_padding=True).read(batch)


def test_counts_are_positions_heard_labels_and_rows():
    tags = torch.tensor([[-100, 1, -100], [-100, -100, -100]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    reading = read("token_classification", {"input_ids": mask, "attention_mask": mask, "labels": tags})
    assert reading.counts().tolist() == [3, 1, 2]  # one labelled token, and the two tokens of the row without labels


def test_a_prompt_and_padding_on_the_left_are_not_heard():
    labels = torch.tensor(
        [[-100, -100, 7, 8], [5, 6, 7, 8]]
    )  # a prompt of two; a padded row with every token labelled
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    reading = read("causal_lm", {"input_ids": labels, "attention_mask": mask, "labels": labels})
    assert reading.labels.tolist() == [[-100, 7, 8, -100], [6, 7, 8, -100]]
    assert reading.labelled.tolist() == [[False, True, True, False], [True, True, True, False]]
    assert reading.heard.tolist() == [[False, True, True, False], [False, True, True, False]]


def test_without_labels_each_token_that_has_a_next_one_is_heard():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    reading = read("causal_lm", {"input_ids": mask, "attention_mask": mask})
    assert reading.heard.tolist() == [[False, True, True, False], [True, True, False, False]]
    assert reading.counts().tolist() == [4, 0, 2]


def test_an_answer_that_was_cut_off_has_no_label():
    mask = torch.ones(2, 3, dtype=torch.long)
    positions = {"start_positions": torch.tensor([1, 3]), "end_positions": torch.tensor([2, -100])}
    reading = read("question_answering", {"input_ids": mask, "attention_mask": mask, **positions})
    assert reading.labels.tolist() == [[1, 2], [-100, -100]]
    assert reading.counts().tolist() == [4, 2, 2]
