"""How far answers are apart: by hand, per row or token, padding left out."""

import math

import numpy as np
import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.divergence import Divergence, answers_of, diverge
from tests.architectures.models import tiny_model

CLASSES = "single_label_classification"


def by_hand(first, other):
    p, q = np.exp(first) / np.exp(first).sum(), np.exp(other) / np.exp(other).sum()
    return float((p * np.log(p / q)).sum())


def test_classes():
    expected, found = (
        torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]]),
        torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.5, 0.5]]),
    )
    both = diverge((expected,), (found,), {}, CLASSES)
    rows = [by_hand(e, f) for e, f in zip(expected.numpy(), found.numpy(), strict=True)]
    assert both.total == pytest.approx(sum(rows), rel=1e-5)
    assert (both.decisions, both.answers, both.agreement) == (1, 2, 0.5)
    assert both.mean == pytest.approx(sum(rows) / 2, rel=1e-5)
    turned = [by_hand(f, e) for e, f in zip(expected.numpy(), found.numpy(), strict=True)]
    assert diverge((found,), (expected,), {}, CLASSES).total == pytest.approx(sum(turned), rel=1e-5) != both.total
    again = both + diverge((expected,), (expected,), {}, CLASSES)
    assert (again.answers, again.agreement) == (4, 0.75)
    assert again.total == pytest.approx(both.total)


def test_several_labels_may_hold():
    expected, found = torch.tensor([[0.5, -1.0]]), torch.tensor([[-0.2, -1.0]])
    one = diverge((expected,), (found,), {}, "multi_label_classification")
    p, q = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.2))
    assert one.total == pytest.approx(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)), rel=1e-5)
    assert one.decisions == 0
    assert diverge((expected,), (expected,), {}, "multi_label_classification").decisions == 1


def test_numbers_decide_nothing():
    one = diverge((torch.tensor([[1.0], [2.0]]),), (torch.tensor([[1.5], [2.0]]),), {}, "regression")
    assert (one.total, one.mean, one.decisions) == (0.25, 0.125, 0)


def test_padding_does_not_count():
    torch.manual_seed(0)
    expected, found = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    batch = {"attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    one = diverge((expected,), (found,), batch, "token_classification")
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert one.answers == 4
    assert one.total == pytest.approx(sum(by_hand(expected[i].numpy(), found[i].numpy()) for i in pairs), rel=1e-4)
    hidden = diverge((expected,), (found,), batch, "feature_extraction")
    assert hidden.answers == 4
    assert hidden.total == pytest.approx(sum((expected[i] - found[i]).square().mean().item() for i in pairs), rel=1e-4)


def test_ends_of_an_answer_lie_among_the_tokens():
    batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
    start, end = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[0.0, 1.0, 9.0]])
    moved = torch.tensor([[0.0, 2.0, -5.0]])
    one = diverge((start, end), (start, moved), batch, "question_answering")
    assert one.total == pytest.approx(by_hand(np.array([0.0, 1.0]), np.array([0.0, 2.0])), rel=1e-5)
    assert (one.decisions, one.answers) == (1, 1)
    assert diverge((start, end), (moved, end), batch, "question_answering").decisions == 0


def test_what_is_no_number_agrees_with_nothing():
    expected, broken = torch.tensor([[2.0, 1.0]]), torch.tensor([[math.nan, math.nan]])  # whose argmax is 0 as well
    one = diverge((expected,), (broken,), {}, CLASSES)
    assert one.agreement == 0
    assert math.isnan(one.mean)
    with pytest.raises(ShrinkError, match="NaN before anything was quantized"):
        diverge((broken,), (expected,), {}, CLASSES)


@pytest.mark.parametrize(
    ("family", "head", "task", "count"),
    [
        ("bert", "QuestionAnswering", "question_answering", 2),
        ("bert", "", "feature_extraction", 1),
        ("llama", "CausalLM", "causal_lm", 1),
    ],
)
def test_answers_of_every_kind_of_model(family, head, task, count):
    model = tiny_model(family, head)
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    found = answers_of(model, batch, task)
    assert len(found) == count
    same = diverge(found, found, batch, task)
    assert same.total == pytest.approx(0, abs=1e-6)
    assert same.answers == (2 if task == "question_answering" else 5)
    assert Divergence().mean == 0
