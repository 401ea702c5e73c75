"""Fingerprints of rows: of their content, and of nothing else."""

import pytest
from datasets import Dataset, Features, LargeList, List, Value, concatenate_datasets, load_dataset

from hf_shrink.inputs import fingerprints
from hf_shrink.inputs.fingerprints import rows_fingerprint

COLUMNS = {
    "text": [f"row {i}" for i in range(20)],
    "words": [["a"] * (i % 3) for i in range(20)],
    "ids": [list(range(i)) for i in range(20)],
    "score": [None if i == 4 else i / 7 for i in range(20)],
    "file": [{"bytes": bytes([i]), "path": None} for i in range(20)],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks that end in the middle of pieces."""
    monkeypatch.setattr(fingerprints, "READ", 7)


def rows(**changes):
    return Dataset.from_dict({**COLUMNS, **changes})


def test_the_same_rows_have_one_fingerprint_however_they_are_stored(tmp_path):
    expected = rows_fingerprint(rows())
    rows().to_parquet(tmp_path / "rows.parquet")
    file = load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train")
    pieces = concatenate_datasets([rows().select(range(9)), rows().select(range(9, 20))])
    picked = rows().select([*range(19, -1, -1)]).select([*range(19, -1, -1)])
    wide = Features({**rows().features, "text": Value("large_string"), "ids": LargeList(Value("int64"))})
    for same in (file, pieces, picked, pieces.flatten_indices(), rows().cast(wide)):
        assert rows_fingerprint(same) == expected


MOVED = {"words": [["ab", "c"], ["d"]]}, {"words": [["ab"], ["c", "d"]]}
JOINED = {"words": [["ab", "c"]]}, {"words": [["a", "bc"]]}
MISSING = {"text": ["", None]}, {"text": [None, ""]}
NAMED = {"text": ["a"]}, {"body": ["a"]}


@pytest.mark.parametrize("pair", [MOVED, JOINED, MISSING, NAMED])
def test_other_rows_have_another(pair):
    one, other = (rows_fingerprint(Dataset.from_dict(columns)) for columns in pair)
    assert one != other


@pytest.mark.parametrize("column", COLUMNS)
def test_each_value_counts(column):
    values = COLUMNS[column]
    changed = [*values[:13], values[14], *values[14:]]
    assert rows_fingerprint(rows(**{column: changed})) != rows_fingerprint(rows())


def test_lists_of_one_length_are_lists():
    features = Features({"ids": List(Value("int32"), length=2)})
    fixed = Dataset.from_dict({"ids": [[1, 2], [3, 4]]}, features=features)
    free = Dataset.from_dict({"ids": [[1, 2], [3, 4]]}, features=Features({"ids": List(Value("int32"))}))
    assert rows_fingerprint(fixed) == rows_fingerprint(free)
