"""Columns on disk: half precision, no padding, whole parts."""

import pyarrow as pa
import pytest
import torch

from hf_shrink.distillation import cache_columns
from hf_shrink.distillation.cache_columns import LARGEST, PartWriter, open_parts, pack, part_files, unpack
from hf_shrink.errors import ShrinkError

OWN = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])


def test_vectors_take_two_bytes_a_value():
    values = torch.randn(5, 7)
    column = pack(values, None, softmax=True)
    assert column.nbytes == 2 * 5 * 7
    assert torch.equal(unpack(pa.chunked_array([column]), None, 0.0), values.half())


@pytest.mark.parametrize("padding", [0.0, -1e4])
def test_padding_is_not_kept_and_comes_back(padding):
    values = torch.randn(3, 3, 2)
    column = pack(values, OWN, softmax=True)
    assert len(column.flatten()) == 4
    back = unpack(pa.chunked_array([column]), OWN, padding)
    assert torch.equal(back, torch.where(OWN.unsqueeze(-1), values.half(), torch.tensor(padding).half()))


def test_rows_of_one_length_need_no_mask():
    values = torch.randn(3, 4, 2)
    assert torch.equal(unpack(pa.chunked_array([pack(values, None, softmax=True)]), None, 0.0), values.half())


def test_what_a_softmax_ignores_is_raised_into_the_range():
    scores = torch.tensor([[1.0, -torch.inf], [torch.finfo(torch.float32).min, 2.0]])
    back = unpack(pa.chunked_array([pack(scores, None, softmax=True)]), None, 0.0)
    assert back.isfinite().all()
    assert torch.equal(back.float().softmax(-1), scores.softmax(-1))


@pytest.mark.parametrize(
    ("values", "softmax"), [([70000.0], True), ([torch.nan], True), ([-70000.0], False), ([-torch.inf], False)]
)
def test_what_half_precision_cannot_hold_is_refused(values, softmax):
    with pytest.raises(ShrinkError, match="`teacher` must give finite values of at most 65504"):
        pack(torch.tensor([values]), None, softmax=softmax)
    assert LARGEST == 65504


def test_padding_may_hold_anything():
    values = torch.full((3, 3, 2), torch.nan)
    values[OWN] = 1.0
    assert len(pack(values, OWN, softmax=False)) == 3


def test_scores_for_other_tokens_than_the_text_are_refused():
    with pytest.raises(ShrinkError, match="one vector a token to be cached, got 5 for 3 tokens"):
        pack(torch.ones(3, 5, 2), OWN, softmax=True)


# ------------------------------------------------------------------ parts
@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path


def table(first, count=10):
    return pa.table({"key": pa.array([bytes([i]) for i in range(first, first + count)], pa.binary())})


def stored(folder):
    return [key[0] for key in open_parts(folder).data.column("key").to_pylist()]


@pytest.mark.parametrize(("limits", "parts"), [({"PART_ROWS": 20}, 2), ({"PART_BYTES": 1}, 3), ({}, 1)])
def test_parts_are_cut_by_rows_and_bytes(folder, monkeypatch, limits, parts):
    for limit, value in limits.items():
        monkeypatch.setattr(cache_columns, limit, value)
    with PartWriter(folder) as writer:
        for first in (0, 10, 20):
            writer.add(table(first))
    assert [path.name for path in part_files(folder)] == [f"train-{i:05d}.arrow" for i in range(parts)]
    assert stored(folder) == list(range(30))


def test_few_record_batches(folder):
    with PartWriter(folder) as writer:
        for first in range(0, 250, 5):
            writer.add(table(first, 5))
    assert open_parts(folder).data.column("key").num_chunks == 1


def interrupted(folder):
    with PartWriter(folder) as writer:
        writer.add(table(0))
        raise KeyboardInterrupt


def test_what_was_added_before_an_exception_stays(folder):
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    assert stored(folder) == list(range(10))


def test_a_part_has_its_name_when_it_is_complete(folder, monkeypatch):
    monkeypatch.setattr(cache_columns, "BATCH_ROWS", 1)
    with PartWriter(folder, first=3, step=2) as writer:
        writer.add(table(0))
        assert part_files(folder) == []
        assert open_parts(folder) is None
        assert [path.name for path in (folder / "data").iterdir()] == ["train-00003.unfinished"]
        writer.close()
        writer.add(table(10))
    assert [path.name for path in sorted((folder / "data").iterdir())] == ["train-00003.arrow", "train-00005.arrow"]


def test_nothing_added_is_nothing_written(folder):
    with PartWriter(folder):
        pass
    assert open_parts(folder) is None
