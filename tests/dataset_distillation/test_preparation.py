import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as Picture

from hf_shrink.dataset_distillation import preparation
from hf_shrink.dataset_distillation.preparation import Encoding, prepare
from hf_shrink.inputs.columns import Columns
from tests.dataset_distillation.encoding import save, texts, tiny_encoder

TEXT = Columns(("text",), None)


def counts(prepared):
    return {stage.name: stage.before - stage.after for stage in prepared.stages}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save(tiny_encoder(), tmp_path_factory.mktemp("encoder"))


def test_rows_like_test_rows_go_where_one_encoder_reads_both(encoder, monkeypatch):
    monkeypatch.setattr(preparation, "find_contaminated", watched := Watched())
    rows = texts(40)
    prepared = prepare(rows, TEXT, Encoding(encoder), exclude=rows.select([3]))
    by_text, by_vector = watched.calls
    assert by_text["text_columns"] == ["text"]
    assert by_vector["embeddings"].shape == (len(rows) - counts(prepared)["rows of test sets"], 32)
    assert by_vector["exclude_embeddings"].shape == (1, 32)
    assert list(counts(prepared)) == ["given", "rows of test sets", "rows like those of test sets"]
    assert 3 not in prepared.alive


def test_embeddings_of_a_user_are_not_compared_with_those_of_an_encoder(encoder, monkeypatch):
    monkeypatch.setattr(preparation, "find_contaminated", watched := Watched())
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    prepare(texts(40), TEXT, Encoding(embeddings=vectors), exclude=texts(3))
    assert len(watched.calls) == 1


def test_what_is_left_keeps_its_vectors():
    rows = Dataset.from_dict({"text": ["a card", "A  card", "a pin", "money"]})
    vectors = np.eye(4)
    prepared = prepare(rows, TEXT, Encoding(embeddings=vectors), duplicates="exact")
    assert prepared.alive.tolist() == [0, 2, 3]
    assert prepared.embeddings.tolist() == vectors[[0, 2, 3]].tolist()


def test_duplicates_by_vector_are_found_after_encoding():
    rows = Dataset.from_dict({"text": ["a card", "one card", "a pin"]})
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]])
    prepared = prepare(rows, TEXT, Encoding(embeddings=vectors), duplicates="semantic")
    assert prepared.alive.tolist() == [0, 2]


def test_nothing_is_encoded_that_nobody_reads(encoder):
    prepared = prepare(texts(12), TEXT, Encoding(encoder, wanted=False), duplicates="exact")
    assert prepared.embeddings is None
    assert prepared.encode_seconds is None


def test_images_have_no_text_to_compare():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    pictures = [Picture.fromarray(picture) for picture in pixels]
    rows = Dataset.from_dict({"image": pictures}, features=Features({"image": Image()}))
    prepared = prepare(rows, Columns(("image",), None), Encoding(), exclude=rows.select([2]), duplicates="exact")
    assert counts(prepared) == {"given": 0, "rows like those of test sets": 1}
    assert 2 not in prepared.alive


class Watched:
    """`find_contaminated`, and what it was asked."""

    def __init__(self):
        from hf_shrink.dataset_distillation.contamination import find_contaminated

        self.calls, self.inner = [], find_contaminated

    def __call__(self, *args, **kwargs):
        self.calls.append(kwargs)
        return self.inner(*args, **kwargs)
