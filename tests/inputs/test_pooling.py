"""One vector a row, whatever the padding."""

import json

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.pooling import POOLINGS, pool, pooling_of

STATES = torch.tensor([[[1.0, -4.0], [3.0, 2.0], [8.0, 8.0]]])  # (1, 3, 2); the last token is padding
EXPECTED = {"mean": [2.0, -1.0], "max": [3.0, 2.0], "cls": [1.0, -4.0], "last": [3.0, 2.0]}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_value_by_hand(pooling):
    pooled = pool(STATES, torch.tensor([[1, 1, 0]]), pooling)
    torch.testing.assert_close(pooled, torch.tensor([EXPECTED[pooling]]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_on_the_left_is_the_same(pooling):
    left = pool(STATES[:, [2, 0, 1]], torch.tensor([[0, 1, 1]]), pooling)
    torch.testing.assert_close(left, torch.tensor([EXPECTED[pooling]]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_a_mask_every_token_counts(pooling):
    torch.testing.assert_close(pool(STATES[:, :2], None, pooling), torch.tensor([EXPECTED[pooling]]))


def test_feature_maps_are_refused():
    with pytest.raises(ShrinkError, match="`pooling`"):
        pool(torch.zeros(2, 3, 4, 4), None, "mean")


@pytest.mark.parametrize(
    ("mode", "pooling"), [("pooling_mode_cls_token", "cls"), ("pooling_mode_mean_tokens", "mean")]
)
def test_the_settings_of_sentence_transformers_are_read(tmp_path, mode, pooling):
    folder = tmp_path / "1_Pooling"
    folder.mkdir()
    modes = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}
    (folder / "config.json").write_text(json.dumps({**modes, mode: True}))
    assert pooling_of(tmp_path) == pooling


@pytest.mark.parametrize(("mode", "pooling"), [("lasttoken", "last"), (["mean"], "mean"), ("cls", "cls")])
def test_the_settings_of_its_later_versions_are_read(tmp_path, mode, pooling):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 8, "pooling_mode": mode}))
    assert pooling_of(tmp_path) == pooling


def test_an_unknown_pooling_is_refused_and_no_settings_mean_the_mean(tmp_path):
    assert pooling_of(tmp_path) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(ShrinkError, match="weightedmean"):
        pooling_of(tmp_path)
