"""Statistics of an answer, against formulas in fp64."""

import numpy as np
import pytest
import torch

from hf_shrink.dataset_distillation import dynamics
from hf_shrink.dataset_distillation.dynamics import STATISTICS, first_seen, last_seen, mean_seen, read_by
from hf_shrink.errors import ShrinkError

LOGITS = [2.0, 0.5, -1.0]
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum()
BY_HAND = {  # of LOGITS with label 1
    "label_probability": SHARES[1],
    "logit_margin": 0.5 - 2.0,
    "probability_margin": SHARES[0] - SHARES[1],
    "error_norm": np.linalg.norm(SHARES - [0, 1, 0]),
    "entropy": -(SHARES * np.log(SHARES)).sum(),
    "correct": 0.0,
    "loss": -np.log(SHARES[1]),
}


@pytest.fixture(params=list(STATISTICS))
def statistic(request):
    return request.param


def of(name, logits, labels):
    return STATISTICS[name](torch.tensor(logits), torch.tensor(labels))


def test_one_row_by_hand(statistic):
    value = of(statistic, [LOGITS], [1])
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(BY_HAND[statistic], rel=1e-6)


def test_every_statistic_is_checked_by_hand():
    assert BY_HAND.keys() == STATISTICS.keys()


def test_tokens_are_averaged_and_those_without_a_label_left_out(statistic):
    tokens = [LOGITS, [0.0, 3.0, 1.0], [9.0, 9.0, 0.0]]
    first, second = of(statistic, [tokens[0]], [1]), of(statistic, [tokens[1]], [2])
    together = of(statistic, [tokens, tokens], [[1, 2, -100], [-100, 2, -100]])
    torch.testing.assert_close(together, torch.cat([(first + second) / 2, second]))


def test_several_labels_are_as_many_answers_of_yes_and_no(statistic):
    value = of(statistic, [[0.7, -2.0, 5.0]], [[1.0, 1.0, -100.0]])
    torch.testing.assert_close(value, of(statistic, [[[0.0, 0.7], [0.0, -2.0]]], [[1, 1]]))


def test_a_row_without_labels_was_not_seen(statistic):
    assert of(statistic, [LOGITS, LOGITS], [-100, 0]).isnan().tolist() == [True, False]


def test_half_precision_is_computed_in_fp32(statistic):
    logits = torch.tensor([[20.0, 19.875, -30.0]])
    half, single = (
        STATISTICS[statistic](logits.to(kind), torch.tensor([1])) for kind in (torch.bfloat16, torch.float)
    )
    assert torch.equal(half, single)


def test_a_vocabulary_is_read_in_parts(statistic, monkeypatch):
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    whole = STATISTICS[statistic](logits, labels)
    monkeypatch.setattr(dynamics, "LARGEST", 40)
    torch.testing.assert_close(STATISTICS[statistic](logits, labels), whole, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(torch.zeros(2, 1), torch.zeros(2)), (torch.zeros(2, 4, 3), torch.zeros(2, dtype=torch.long))],
)
def test_what_has_no_classes_is_refused(statistic, logits, labels):
    with pytest.raises(ShrinkError, match="`labels` must be class ids"):
        STATISTICS[statistic](logits, labels)


def test_means_first_and_last_pass_over_epochs_that_saw_nothing():
    nan = np.nan
    values = np.array([[nan, 1, nan, 4], [2, 2, nan, 5], [4, nan, nan, 9]], dtype=np.float32)
    assert np.array_equal(mean_seen(values), [3, 1.5, nan, 6], equal_nan=True)
    assert np.array_equal(first_seen(values), [2, 1, nan, 4], equal_nan=True)
    assert np.array_equal(last_seen(values), [4, 2, nan, 9], equal_nan=True)
    assert {f(values).dtype for f in (mean_seen, first_seen, last_seen)} == {np.dtype(np.float32)}


def test_scores_share_what_they_read():
    assert read_by(["forgetting", "correctness", "aum"]) == ("correct", "logit_margin")
