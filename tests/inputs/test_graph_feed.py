import numpy as np
import torch
from transformers import DynamicCache

from hf_shrink.inputs.graph_feed import GraphInput, cache_from_outputs, cache_to_feed, complete_feed, is_cached

IDS = GraphInput(np.int64, (None, None))
KEYS = GraphInput(np.float32, (None, 2, None, 4))
CACHED = {"input_ids": IDS, "attention_mask": IDS, "position_ids": IDS} | {
    f"past_key_values.0.{kind}": KEYS for kind in ("key", "value")
}


def test_a_past_is_empty_where_none_is_given():
    feed = complete_feed({"input_ids": torch.ones(3, 5, dtype=torch.long), "labels": torch.ones(3)}, CACHED)
    assert set(feed) == set(CACHED)
    assert feed["past_key_values.0.key"].shape == (3, 2, 0, 4)
    assert feed["attention_mask"].tolist() == [[1] * 5] * 3
    assert feed["position_ids"].tolist() == [[0, 1, 2, 3, 4]] * 3


def test_positions_go_on_after_the_past_and_leave_padding_out():
    past = {f"past_key_values.0.{kind}": torch.zeros(2, 2, 3, 4) for kind in ("key", "value")}
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    feed = complete_feed({"input_ids": torch.ones(2, 2), "attention_mask": mask, **past}, CACHED)
    assert feed["position_ids"].tolist() == [[1, 2], [3, 3]]
    without = complete_feed({"input_ids": torch.ones(2, 2), **past}, CACHED)
    assert without["attention_mask"].shape == (2, 5)
    assert without["position_ids"].tolist() == [[3, 4], [3, 4]]
    given = complete_feed({"input_ids": torch.ones(2, 2), "position_ids": torch.full((2, 2), 7)}, CACHED)
    assert given["position_ids"].tolist() == [[7, 7], [7, 7]]


def test_encoders_get_token_types_and_nothing_that_a_caller_must_say():
    declared = {"input_ids": IDS, "attention_mask": IDS, "token_type_ids": IDS}
    feed = complete_feed({"input_ids": torch.ones(2, 3), "token_type_ids": None}, declared)
    assert set(feed) == {"input_ids", "token_type_ids"}  # a mask that is missing is an error to be told
    assert not feed["token_type_ids"].any()
    assert not is_cached(declared)
    assert complete_feed({"pixel_values": torch.ones(1, 3, 4, 4)}, declared) == {}


def test_a_cache_goes_in_and_comes_back():
    pairs = [(torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4)) for _ in range(2)]
    feed = cache_to_feed(DynamicCache(pairs))
    assert torch.equal(feed["past_key_values.1.value"], pairs[1][1])
    assert len(feed) == 4
    outputs = {"logits": torch.zeros(1), **{name.replace("past_key_values", "present"): v for name, v in feed.items()}}
    cache = cache_from_outputs(outputs)
    assert list(outputs) == ["logits"]
    assert cache.get_seq_length() == 3
    assert torch.equal(cache.layers[0].keys, pairs[0][0])
    assert cache_to_feed(None) == cache_to_feed(DynamicCache()) == {}
