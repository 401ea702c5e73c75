"""Vectors without a model: like texts are near each other, and the same input gives the same bytes."""

import logging

import numpy as np
import pytest
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from hf_shrink.cli.quickstart_stages import BANKING77
from hf_shrink.dataset_distillation import encoder as encoder_module
from hf_shrink.dataset_distillation import plain_embeddings
from hf_shrink.dataset_distillation.encoder import encode
from hf_shrink.inputs.datasets import load_rows


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """As on a machine without one."""
    monkeypatch.setattr(encoder_module, "usual_encoder", lambda: None)


def plain(*texts, **options):
    return encode(Dataset.from_dict({"text": texts}), **options).astype(np.float64)


def test_like_texts_are_near_each_other():
    found = plain("where is my card", "where is my card?", "I lost a pin", "transfers fail", "we lost the pins")
    near = found @ found.T
    np.testing.assert_allclose(np.diag(near), 1, atol=1e-3)
    np.fill_diagonal(near, 0)
    assert near[0].argmax() == 1
    assert near[2].argmax() == 4


def test_banking77_is_told_apart_by_words_and_letters():
    train, test = (load_rows(BANKING77, split=split).shuffle(seed=0).select(range(n)) for split, n in
                   (("train", 3000), ("test", 1000)))  # fmt: skip
    rows = Dataset.from_dict({"text": [*train["text"], *test["text"]]})
    found = encode(rows).astype(np.float32)
    head = LogisticRegression(C=30, max_iter=200).fit(found[:3000], train["label"])
    assert head.score(found[3000:], test["label"]) > 0.7  # chance is 0.013


def test_the_user_is_told(caplog):
    logger = logging.getLogger("hf_shrink.dataset_distillation.encoder")
    logger.addHandler(caplog.handler)
    try:
        plain("a card", "a pin")
    finally:
        logger.removeHandler(caplog.handler)
    assert "No encoder is named and none is on this machine" in caplog.text


def test_texts_that_share_nothing_with_the_found_directions_are_alike(monkeypatch):
    """Scaled up from next to nothing, they would point where rounding errors do."""
    monkeypatch.setattr(plain_embeddings, "WIDTH", 4)
    found = plain(*[f"where is card {i % 7} of mine" for i in range(400)], "ž", "☃")
    assert found[-2] @ found[-1] > 0.999
    assert np.abs(found[-2:] @ found[:400].T).max() < 0.1


def test_pairs_and_words_are_joined():
    rows = Dataset.from_dict({"question": ["my card", "a pin"], "sentence": ["is lost", "please"]})
    np.testing.assert_array_equal(encode(rows), plain("my card is lost", "a pin please").astype(np.float16))
    rows = Dataset.from_dict({"tokens": [["my", "card"], ["a", "pin"]]})
    np.testing.assert_array_equal(encode(rows), plain("my card", "a pin").astype(np.float16))


@pytest.mark.parametrize("texts", [("one",), ("a", "a"), ("a", "b")])
def test_the_smallest_sets(texts):
    assert np.isfinite(plain(*texts)).all()


def test_many_rows_are_read_by_what_was_found_in_some(monkeypatch):
    texts = load_rows(BANKING77, split="train")["text"][:600]
    whole = plain(*texts)
    monkeypatch.setattr(plain_embeddings, "FITTED", 300)
    sampled = plain(*texts)
    assert sampled.shape[0] == 600
    # The nearest neighbour of a row is found among the like: by eye the same texts, by number most of the same.
    tables = [whole @ whole.T - 2 * np.eye(600), sampled @ sampled.T - 2 * np.eye(600)]
    assert np.mean(tables[0].argmax(1) == tables[1].argmax(1)) > 0.5
    assert not np.array_equal(sampled, plain(*texts, seed=1))


def test_threads_and_repeats_make_the_same_bytes(monkeypatch):
    monkeypatch.setattr(plain_embeddings, "FITTED", 1500)
    texts = load_rows(BANKING77, split="train")["text"][:2000]
    found = []
    for threads in (1, 2, 2):
        with threadpool_limits(threads):
            found.append(plain(*texts).tobytes())
    assert found[0] == found[1] == found[2]
