"""A dataset in a folder: what its card tells `load_dataset`, and what of it goes to the Hub."""

import pytest
from datasets import Dataset, DatasetInfo, load_dataset
from huggingface_hub import HfApi

from hf_shrink.hub.dataset_folder import folder_card, push_dataset_folder
from tests.hub.cards import front_matter, validate_card


@pytest.fixture
def folder(tmp_path):
    """Rows with a description and a licence, and a file beside them that is none of the split."""
    rows = Dataset.from_dict({"text": ["a", "b", "c"]}, info=DatasetInfo(description="Three letters.", license="mit"))
    rows.to_parquet(tmp_path / "train.parquet")
    Dataset.from_dict({"other": [1]}).to_parquet(tmp_path / "more-train.parquet")
    return rows, tmp_path


def test_the_card_reads_one_file_and_keeps_what_the_rows_say_of_themselves(folder):
    rows, path = folder
    card = folder_card(rows, path / "train.parquet", source="user/letters")
    (path / "README.md").write_text(card)
    assert validate_card(card, "dataset") == ([], [])
    assert front_matter(card)[0]["license"] == "mit"
    back = load_dataset(str(path), split="train")
    assert back.to_dict() == rows.to_dict()
    assert back.info.description == "Three letters."
    assert f"# {path.name}\n" in card
    assert str(path) not in card


def test_the_most_restrictive_licence_counts(folder):
    rows, path = folder
    card = folder_card(rows, path / "train.parquet", license=["apache-2.0", "cc-by-nc-4.0"])
    assert front_matter(card)[0]["license"] == "cc-by-nc-4.0"


@pytest.mark.parametrize("carded", [True, False])
def test_rows_go_up_with_what_the_card_says_where_there_is_one(folder, hub, carded):
    rows, path = folder
    repo_id = f"user/letters-{carded}"
    if carded:
        (path / "README.md").write_text(folder_card(rows, path / "train.parquet", source="user/all-letters"))
    (path / "more-train.parquet").unlink()
    push_dataset_folder(path, repo_id)
    assert load_dataset(repo_id, split="train").to_dict() == rows.to_dict()
    card = HfApi().dataset_info(repo_id).card_data
    assert card.get("license") == ("mit" if carded else None)
    assert card.get("source_datasets") == (["user/all-letters"] if carded else None)
