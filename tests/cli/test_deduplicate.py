"""`hf-shrink deduplicate`, from files to files."""

import json

import pytest
from datasets import ClassLabel, Dataset, load_dataset

from hf_shrink.errors import ShrinkError

TEXTS = ["How do I order a new card, please?", "how do I order a NEW  card, please?", "Where is my money"] * 2
TEXTS += ["How do I order a new card, pleas?"]


@pytest.fixture
def rows(tmp_path):
    """A folder with two splits."""
    folder = tmp_path / "rows"
    folder.mkdir()
    made = Dataset.from_dict({"text": TEXTS, "label": [0, 0, 1, 0, 0, 1, 0]}).cast_column(
        "label", ClassLabel(names=["card", "money"])
    )
    for split in ("train", "test"):
        made.to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture
def deduplicate(run, rows, tmp_path):
    """Run the command."""

    def call(*more):
        return run("deduplicate", "--dataset", rows, "--split", "train", "--output-dir", tmp_path / "out", *more)

    return call


def test_what_stays_is_a_dataset_and_what_went_is_listed(deduplicate, tmp_path):
    said = deduplicate("--threshold", 0.8).stdout.splitlines()
    small = load_dataset(str(tmp_path / "out"), split="train")
    assert small["text"] == [TEXTS[0], TEXTS[2]]
    assert small.features["label"].names == ["card", "money"]
    assert said[0] == f"7 rows, 5 left out as duplicates, 2 in {tmp_path / 'out' / 'train.parquet'}"
    assert len(said) == 7  # three pairs, the least alike first
    assert said[1].endswith(f"row 6: {TEXTS[6]}")
    assert said[2] == f"    like  row 0: {TEXTS[0]}"
    report = json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert [(pair["removed"], pair["kept"]) for pair in report["duplicates"]] == [
        (1, 0),
        (3, 0),
        (4, 0),
        (5, 2),
        (6, 0),
    ]
    assert report["method"] == "jaccard"


def test_flags_and_a_config_file_reach_the_method(deduplicate, tmp_path):
    (tmp_path / "c.yaml").write_text("method: minhash\nthreshold: 0.8\nset_:\n  shingle_size: 30\nkeep: central\n")
    deduplicate("--config", tmp_path / "c.yaml")
    report = json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert report["method"] == "minhash"
    assert report["removed"] == 4  # a letter less changes most runs of 30
    deduplicate("--method", "exact", "--split", "test", "--output-dir", tmp_path / "again")
    assert len(load_dataset(str(tmp_path / "again"), split="test")) == 3


def test_an_encoder_makes_the_embeddings(deduplicate, teacher, tmp_path):
    deduplicate("--method", "semantic", "--encoder", teacher, "--threshold", 0.999999)
    kept = load_dataset(str(tmp_path / "out"), split="train")["text"]
    assert TEXTS[0] in kept
    assert len(kept) < len(TEXTS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "minhasch"), "Did you mean 'minhash'"),
        (("--threshold", 2), "`threshold` must be in"),
        (("--keep", "last"), "`keep` must be"),
        (("--set", "shingle_size"), "`--set` must be NAME=VALUE"),
        (("--set", "bands=3"), "`bands` must be an option of the method"),
        (("--split", "validation"), "`split` must be one of"),
    ],
)
def test_what_is_refused_writes_nothing(deduplicate, tmp_path, more, said):
    with pytest.raises(ShrinkError, match=said):
        deduplicate(*more)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(deduplicate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ShrinkError, match="`output_dir` must be new or empty"):
        deduplicate()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
