"""Scores of a few rows, by hand."""

import numpy as np
import pytest

from hf_shrink.dataset_distillation import SCORES
from hf_shrink.errors import ShrinkError


def score(name, statistic, *epochs, **options):
    return SCORES[name].function({statistic: np.array(epochs, dtype=np.float32)}, **options).tolist()


def test_forgetting_counts_falls_and_calls_what_was_never_learned_the_hardest():
    rows = {
        "easy": [1, 1, 1, 1, 1],
        "learned late": [0, 0, 0, 1, 1],
        "forgotten once": [0, 1, 0, 1, 1],
        "forgotten twice, at the end too": [1, 0, 1, 1, 0],
        "never learned": [0, 0, 0, 0, 0],
    }
    assert score("forgetting", "correct", *np.transpose(list(rows.values()))) == [0, 0, 1, 2, 5]


def test_forgetting_sees_a_fall_across_an_epoch_that_did_not_see_the_row():
    assert score("forgetting", "correct", [1], [np.nan], [0], [1]) == [1]


def test_forgetting_of_a_row_of_tokens_is_a_smaller_share_of_right_ones():
    assert score("forgetting", "correct", [0.5, 0.5], [0.25, 1.0], [0.5, 0.75]) == [
        3,
        1,
    ]  # the first never wholly right


def test_el2n_is_the_mean_of_the_first_epochs():
    assert score("el2n", "error_norm", [1.0], [0.5], [0.0]) == [0.5]
    assert score("el2n", "error_norm", [1.0], [0.5], [0.0], epochs=2) == [0.75]
    assert score("el2n", "error_norm", *[[1.0]] * 10, *[[0.0]] * 10) == [1.0]


def test_el2n_of_no_epoch_is_refused():
    with pytest.raises(ShrinkError, match="`epochs` must be at least 1, got 0"):
        score("el2n", "error_norm", [1.0], epochs=0)


def test_aum_is_the_mean_margin():
    assert score("aum", "logit_margin", [3.0, -1.0], [1.0, -2.0]) == [2.0, -1.5]


def test_cartography_is_mean_and_spread_of_the_label_s_probability_and_the_share_of_right_answers():
    assert score("confidence", "label_probability", [0.25, 0.5], [0.75, 0.5]) == [0.5, 0.5]
    assert score("variability", "label_probability", [0.25, 0.5], [0.75, 0.5]) == [0.25, 0.0]
    assert score("correctness", "correct", [0, 1], [1, 1], [0, 1], [0, 1]) == [0.25, 1.0]


def test_margin_and_entropy_are_the_last_epoch_s_and_perplexity_the_first_s():
    assert score("margin", "probability_margin", [0.5], [0.25]) == [0.25]
    assert score("entropy", "entropy", [0.5], [0.25]) == [0.25]
    assert score("perplexity", "loss", [np.log(8.0)], [0.0]) == pytest.approx([8.0])
