"""Where vectors are kept: a run that was cut off goes on, a folder of others is refused, processes share the rows."""

import numpy as np
import pytest
from datasets import Dataset

from hf_shrink.dataset_distillation import encoder as encoder_module
from hf_shrink.dataset_distillation.encoder import encode
from hf_shrink.errors import ShrinkError
from tests.dataset_distillation.encode_in_processes import vectors
from tests.dataset_distillation.encoding import TEXTS, save, texts, tiny_encoder
from tests.dataset_distillation.test_encoder import pictures
from tests.distillation.caching import CountedForwards
from tests.models import tiny_bert_classifier, tiny_tokenizer
from tests.processes import run_processes


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two batches a chunk, and no model of the machine's."""
    monkeypatch.setattr(encoder_module, "CHUNK", 2)
    monkeypatch.setattr(encoder_module, "usual_encoder", lambda: None)


def encoded(folder=None, rows=None, model=None, **options):
    rows, model = texts() if rows is None else rows, tiny_encoder() if model is None else model
    return encode(rows, model, processing_class=tiny_tokenizer(), output_dir=folder, **{"batch_size": 2, **options})


def test_a_folder_holds_what_memory_would(tmp_path):
    found = encoded(tmp_path / "new" / "folder")
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, encoded())
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["embeddings.npy", "encoding.json"]


def test_what_is_there_is_not_encoded_again(tmp_path):
    first, model = encoded(tmp_path), tiny_encoder()
    counted = CountedForwards(model)
    np.testing.assert_array_equal(encoded(tmp_path, model=model), first)
    assert counted.rows == 0


class CutOff(Exception):
    """The machine goes away."""


def test_a_run_that_was_cut_off_goes_on(tmp_path):
    model = tiny_encoder()
    counted = CountedForwards(model)

    def fail(module, args, kwargs):
        if counted.rows > 6:
            raise CutOff

    handle = model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(CutOff):
        encoded(tmp_path, model=model)
    handle.remove()
    (tmp_path / "parts" / "000001.unfinished").write_bytes(b"half a chunk")
    counted.rows = 0
    found = encoded(tmp_path, model=model)
    assert counted.rows == len(TEXTS) - 4  # the first chunk was whole
    np.testing.assert_array_equal(found, encoded())


OTHER = {
    "rows": {"rows": Dataset.from_dict({"text": [*TEXTS[:-1], "card"]})},
    "order": {"rows": Dataset.from_dict({"text": TEXTS[::-1]})},
    "length": {"max_length": 4},
    "weights": {"model": tiny_encoder(seed=1)},
    "pooling": {"pooling": "cls"},
    "batch_size": {"batch_size": 3},
}


@pytest.mark.parametrize("case", OTHER)
def test_vectors_of_something_else_are_refused(tmp_path, case):
    encoded(tmp_path)
    with pytest.raises(ShrinkError, match="was made with others: (rows|weights|pooling|batch_size)"):
        encoded(tmp_path, **OTHER[case])


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ShrinkError, match="holds other files"):
        encoded(tmp_path)


@pytest.mark.parametrize("rows", [texts(), pictures()], ids=["texts", "images"])
def test_vectors_without_a_model_are_kept_too(tmp_path, monkeypatch, rows):
    found = encode(rows, output_dir=tmp_path)
    np.testing.assert_array_equal(found, encode(rows))
    monkeypatch.setattr(encoder_module, "_plain", None)
    np.testing.assert_array_equal(encode(rows, output_dir=tmp_path), found)
    with pytest.raises(ShrinkError, match="made with others: seed"):
        encode(rows, output_dir=tmp_path, seed=1)


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same_bytes(tmp_path):
    for count in (1, 2):
        save(tiny_encoder(), tmp_path / str(count) / "model")
        save(tiny_bert_classifier(), tmp_path / str(count) / "teacher")
    one = vectors(tmp_path / "1")
    run_processes(2, "tests.dataset_distillation.encode_in_processes", tmp_path / "2")
    assert one["memory"].shape == (101, 32)
    np.testing.assert_array_equal(one["folder"], one["memory"])
    np.testing.assert_array_equal(one["saved"], one["words"])
    for process in range(2):
        other = np.load(tmp_path / "2" / f"{process}.npz")
        for name in one:
            assert other[name].tobytes() == one[name].tobytes(), name
