"""A dataset that lies in a folder: its card, and its way to the Hub."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.dataset_card import DatasetFiles, ThereAlready, render_dataset_card
from hf_shrink.hub.files import CARD
from hf_shrink.hub.licenses import license_of
from hf_shrink.hub.rendering import split_card
from hf_shrink.hub.upload import push_dataset_to_hub
from hf_shrink.inputs.datasets import load_rows

HERE = "."  # the card is read in the folder


def folder_card(
    dataset: Dataset, file: Path, *, source: str | None = None, license: str | Sequence[str] | None = None
) -> str:
    """Write the card of a dataset that lies in one file; it tells `load_dataset` to read this file alone.

    Args:
        dataset: The rows.
        file: Where they are, as parquet, beside the card.
        source: Hub id or name of the dataset that this one was made from.
        license: The Hub's identifier of the licence; of several the most restrictive counts.

    Returns:
        The text of README.md.
    """
    new = DatasetFiles(dataset, "train", {file.name: file}, source, license_of(dataset, license))
    return render_dataset_card(new, ThereAlready(), HERE, title=file.resolve().parent.name)


def push_dataset_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload the rows of a folder, with the source and the licence that its card names.

    Args:
        folder: Holds one split, and README.md where there is one.
        repo_id: Where to, as user/name; it is made if it is not there.
        private: Who may see a repository made now; None leaves it to the Hub.
        revision: Branch; None is main.
        commit_message: First line of the commit.

    Returns:
        Address of the commit.

    Raises:
        ShrinkError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ShrinkError(f"`folder` must be a folder with a dataset, but there is none at {folder}. Check the path.")
    rows, card = load_rows(folder), folder / CARD
    metadata = split_card(card.read_text(encoding="utf-8"))[0] if card.is_file() else {}
    return push_dataset_to_hub(
        rows,
        repo_id,
        split=str(rows.split),
        private=private,
        revision=revision,
        commit_message=commit_message,
        source=next(iter(metadata.get("source_datasets") or ()), None),
        license=metadata.get("license"),
    )
