import numpy as np
import pytest
from datasets import Dataset

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.pool import Pool
from hf_shrink.dataset_distillation.strata import Strata
from hf_shrink.dataset_distillation.tokens import count_tokens, select_within_tokens
from tests.models import tiny_tokenizer


def pool(rows, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = generator.permutation(np.arange(rows) % classes)
    return Pool(Strata("classes", ids, tuple("abcdefgh"[:classes])), vectors, seed=seed)


def test_tokens_are_counted_as_the_tokenizer_makes_them():
    rows = Dataset.from_dict({"text": ["my card", "where is my money please"]})
    assert count_tokens(rows, ("text",), tiny_tokenizer()).tolist() == [4, 7]  # with [CLS] and [SEP]
    assert count_tokens(Dataset.from_dict({"input_ids": [[1, 2, 3]]}), ()).tolist() == [3]


def test_texts_need_a_tokenizer():
    with pytest.raises(ShrinkError, match="`processing_class` must be given for a budget of tokens"):
        count_tokens(Dataset.from_dict({"text": ["my card"]}), ("text",))


@pytest.mark.parametrize("method", ["random", "stratified", "kmeans", "facility_location", "herding"])
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_is_used_and_never_exceeded(method, seed):
    rows = pool(400, seed=seed)
    lengths = np.random.default_rng(seed).geometric(0.05, 400) + 2
    for limit in (300, 2000, int(lengths.sum()) - 1):
        picks = select_within_tokens(rows, lengths, limit, method)
        assert 0.99 * limit <= lengths[picks.rows].sum() <= limit
        assert len(np.unique(picks.rows)) == len(picks.rows) == len(picks.weights)
        assert set(rows.strata.ids[picks.rows]) == {0, 1, 2}


def test_a_class_whose_best_row_is_too_long_gets_a_shorter_one():
    rows = pool(60)
    lengths = np.where(rows.strata.ids == 0, 500, 5)
    lengths[np.flatnonzero(rows.strata.ids == 0)[7]] = 20  # the only short row of its class
    picks = select_within_tokens(rows, lengths, 40, "herding")
    assert lengths[picks.rows].sum() <= 40
    assert set(rows.strata.ids[picks.rows]) == {0, 1, 2}


@pytest.mark.parametrize("limit", [14, 6001])
def test_a_budget_that_cannot_be_met_is_refused(limit):
    with pytest.raises(ShrinkError, match=r"`budget` must be in \[15, 1500\] tokens"):
        select_within_tokens(pool(300), np.full(300, 5), limit, "random")
