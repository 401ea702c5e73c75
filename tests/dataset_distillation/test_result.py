import numpy as np
import pytest
from datasets import ClassLabel, Image, Value

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.report import DatasetReport
from hf_shrink.dataset_distillation.result import check_own_columns, write_result
from tests.dataset_distillation.clusters import CLASSES, labelled_rows


def report(**fields):
    settings = {"source": "rows", "rows_before": 600, "rows": 3, "budget": "3 rows", "method": "random"}
    return DatasetReport(
        **{**settings, "selector": "random", "options": {}, "seed": 0, "paper": None, "verdict": "By lot.", **fields}
    )


def small(seed=0, picked=(7, 3, 500)):
    rows, _ = labelled_rows()
    picked = np.array(picked)
    weights = np.array([1.5, 1.0, 0.5], dtype=np.float32)
    return write_result(rows, picked, {"weight": weights}, indices=picked, report=report(seed=seed))


def test_rows_are_the_sources_own_and_say_where_they_stood():
    rows, _ = labelled_rows()
    for row in small():
        source = rows[row["source_index"]]
        assert (row["text"], row["label"]) == (source["text"], source["label"])
    by_rank = small().sort("rank")
    assert by_rank["source_index"][:] == [7, 3, 500]
    assert by_rank["weight"][:] == [1.5, 1.0, 0.5]


def test_features_are_kept_and_nothing_is_mapped():
    found = small()
    assert found.features["label"] == ClassLabel(names=list(CLASSES))
    assert (found.features["source_index"], found.features["rank"]) == (Value("int64"), Value("int32"))
    assert found._indices is None
    assert found.info.description.startswith("3 of 600 rows of rows")


def test_the_fingerprint_hangs_on_the_content_alone():
    assert small()._fingerprint == small()._fingerprint
    assert small()._fingerprint != small(picked=(7, 3, 501))._fingerprint


def test_columns_of_the_users_own_are_not_overwritten():
    rows, _ = labelled_rows()
    with pytest.raises(ShrinkError, match="`dataset` must have no column named 'weight'"):
        check_own_columns(rows.add_column("weight", [1] * 600))


def test_those_of_an_earlier_distillation_are():
    assert check_own_columns(small()).column_names == ["text", "label"]


def test_images_travel(tmp_path):
    from datasets import Dataset, Features
    from PIL import Image as Picture

    pictures = [Picture.new("RGB", (4, 4), (40 * i, 0, 0)) for i in range(6)]
    rows = Dataset.from_dict({"image": pictures}, features=Features({"image": Image()}))
    found = write_result(rows, np.array([4, 1]), {}, indices=np.array([4, 1]), report=report())
    assert [p.getpixel((0, 0))[0] for p in found.sort("rank")["image"]] == [160, 40]
