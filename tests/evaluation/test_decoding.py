import math

import numpy as np
import pytest
import torch

from hf_shrink.evaluation.decoding import DECODERS, merge, references

NAMES = ["O", "B-X", "I-X"]


def test_classes_leave_unlabelled_rows_out():
    logits = torch.tensor([[0.0, 2.0], [3.0, 1.0], [0.0, 1.0]])
    decoded = DECODERS["single_label_classification"](logits, torch.tensor([1, -100, 0]), [])
    assert decoded.predictions.tolist() == [1, 1]
    assert decoded.references.tolist() == [1, 0]
    assert decoded.correct.tolist() == [True, False]


def test_label_sets_are_cut_at_one_half():
    logits = torch.tensor([[0.1, -0.1], [-3.0, 4.0]])
    decoded = DECODERS["multi_label_classification"](logits, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [])
    assert decoded.predictions.tolist() == [[1, 0], [0, 1]]
    assert decoded.correct.tolist() == [True, False]


def test_numbers_have_the_labels_shape():
    decoded = DECODERS["regression"](torch.tensor([[1.5], [2.0]]), torch.tensor([1.0, 2.0]), [])
    assert decoded.predictions.tolist() == [1.5, 2.0]
    assert decoded.predictions.shape == decoded.references.shape == (2,)
    assert decoded.choices is None
    wide = DECODERS["regression"](torch.ones(2, 3), torch.zeros(2, 3), [])
    assert wide.predictions.shape == wide.references.shape == (2, 3)


def test_tags_are_named_and_padding_is_left_out():
    logits = torch.eye(3)[torch.tensor([[0, 1, 2], [1, 0, 0]])]  # (2, 3, 3)
    labels = torch.tensor([[0, 1, 1], [-100, 2, -100]])
    decoded = DECODERS["token_classification"](logits, labels, NAMES)
    assert decoded.predictions == [["O", "B-X", "I-X"], ["O"]]
    assert decoded.references == [["O", "B-X", "B-X"], ["I-X"]]
    assert decoded.choices.tolist() == [0, 1, 2, 0]
    assert DECODERS["token_classification"](logits, labels, []).references == [[0, 1, 1], [2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_language_model_losses_are_the_formula(dtype):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 7).to(dtype)
    labels = torch.tensor([[1, 2, 3, -100], [4, 5, 6, 0]])
    log_p = logits.double().log_softmax(-1)
    causal = DECODERS["causal_lm"](logits, labels, [])
    expected = [-(log_p[0, 0, 2] + log_p[0, 1, 3]), -(log_p[1, 0, 5] + log_p[1, 1, 6] + log_p[1, 2, 0])]
    assert causal.predictions == pytest.approx([value.item() for value in expected], rel=1e-5)
    assert causal.references.tolist() == [2, 3]  # position t predicts token t + 1
    masked = DECODERS["masked_lm"](logits, torch.tensor([[-100, 2, -100, -100], [-100] * 4]), [])
    assert masked.predictions == pytest.approx([-log_p[0, 1, 2].item(), 0.0], rel=1e-5)
    assert masked.references.tolist() == [1, 0]


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity():
    decoded = DECODERS["causal_lm"](torch.zeros(3, 5, 11), torch.randint(0, 11, (3, 5)), [])
    assert math.exp(decoded.predictions.sum() / decoded.references.sum()) == pytest.approx(11)


def test_merged_batches_are_one_batch():
    torch.manual_seed(0)
    for task, shape, labels in (
        ("single_label_classification", (6, 3), torch.tensor([0, 1, 2, -100, 1, 0])),
        ("token_classification", (6, 4, 3), torch.randint(0, 3, (6, 4))),
        ("regression", (6, 1), torch.rand(6)),
    ):
        logits = torch.randn(shape)
        parts = [DECODERS[task](logits[i : i + 4], labels[i : i + 4], NAMES) for i in (0, 4)]
        whole, joined = DECODERS[task](logits, labels, NAMES), merge(parts)
        for field in ("predictions", "references", "choices", "correct"):
            assert np.array_equal(np.array(getattr(whole, field)), np.array(getattr(joined, field)))


def test_references_alone_are_those_of_the_decoder():
    labels = [[0, -100, 1], [2, 2, -100]]
    assert references("token_classification", labels, NAMES) == [["O", "B-X"], ["I-X", "I-X"]]
    assert references("single_label_classification", [1, -100, 0], []).tolist() == [1, 0]
    assert references("multi_label_classification", [[1.0, 0.2]], []).tolist() == [[1, 0]]
    assert references("regression", [0.5], []).tolist() == [0.5]
