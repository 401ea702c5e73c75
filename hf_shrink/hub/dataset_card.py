"""Dataset cards: the features that `load_dataset` reads, for all splits of a repository."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo
from huggingface_hub.repocard import RepoCard

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.commit import Destination
from hf_shrink.hub.files import CARD
from hf_shrink.hub.rendering import hub_ids, render

SPLIT = re.compile(r"\w+(\.\w+)*")
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


@dataclass(frozen=True)
class DatasetFiles:
    """One split that is being pushed.

    Args:
        dataset: Its rows.
        split: Its name.
        shards: Path in the repository to the file here.
        source: What it was made from.
        license: The Hub's identifier of the licence.
    """

    dataset: Dataset
    split: str
    shards: Mapping[str, Path]
    source: str | None
    license: str | None


@dataclass(frozen=True)
class ThereAlready:
    """What the repository held before.

    Args:
        metadata: Its card's metadata.
        files: Its files.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def info(self) -> dict[str, Any]:
        """`dataset_info` of its card; empty where there is none, or several configurations."""
        info = self.metadata.get("dataset_info") or {}
        return dict(info) if isinstance(info, Mapping) else {}

    def files_of(self, split: str) -> list[str]:
        """Parquet files of a split.

        Args:
            split: Its name.

        Returns:
            Paths in the repository.
        """
        pattern = re.compile(rf"data/{re.escape(split)}-\d{{5}}-of-\d{{5}}\.parquet")
        return [path for path in self.files if pattern.fullmatch(path)]


def read_card(destination: Destination, sha: str) -> ThereAlready:
    """Read what a dataset's repository holds.

    Args:
        destination: The repository.
        sha: The commit to read.

    Returns:
        Its metadata and files.
    """
    files = tuple(destination.files(sha))
    text = destination.text(CARD, sha) if CARD in files else ""
    return ThereAlready(RepoCard(text, ignore_metadata_errors=True).data.to_dict(), files)


def render_dataset_card(new: DatasetFiles, there: ThereAlready, repo_id: str) -> str:
    """Write the card of a dataset.

    Args:
        new: The split that is pushed.
        there: What the repository holds; its other splits stay on the card.
        repo_id: The repository.

    Returns:
        The text of README.md.

    Raises:
        ShrinkError: If the other splits have other features.
    """
    info = _info(new)
    others = [row for row in there.info.get("splits") or () if row["name"] != new.split]
    if others and there.info.get("features") != info["features"]:
        raise ShrinkError(
            f"`dataset` must have the features of the splits that {repo_id!r} holds already, "
            f"{[row['name'] for row in others]}, got {list(new.dataset.features)}. Cast it, or push it elsewhere."
        )
    info["splits"] = sorted([*others, *info["splits"]], key=lambda row: row["name"] != "train")
    info["dataset_size"] = sum(row["num_bytes"] for row in info["splits"])
    info["download_size"] = sum(path.stat().st_size for path in new.shards.values()) + _others_size(there, new)
    rows = {row["name"]: row["num_examples"] for row in info["splits"]}
    sources = [new.source] if new.source else list(there.metadata.get("source_datasets") or ())
    metadata = {
        "license": new.license or there.metadata.get("license"),
        "source_datasets": hub_ids(sources),
        "size_categories": [_size(sum(rows.values()))],
        "tags": list(dict.fromkeys([*(there.metadata.get("tags") or ()), "hf-shrink"])),
        "dataset_info": info,
        "configs": [{"config_name": "default", "data_files": [_pattern(name) for name in rows]}],
    }
    return render(
        "dataset_card",
        metadata,
        title=repo_id.split("/")[-1],
        repo_id=repo_id,
        sources=sources,
        description=(new.dataset.info.description or "").strip(),
        splits=rows,
        columns={name: _type(feature) for name, feature in new.dataset.features.items()},
    )


def _info(new: DatasetFiles) -> dict[str, Any]:
    features = DatasetInfo(features=new.dataset.features)._to_yaml_dict()["features"]  # the form load_dataset reads
    size = int(new.dataset.data.nbytes) if len(new.dataset) else 0
    return {
        "features": features,
        "splits": [{"name": new.split, "num_bytes": size, "num_examples": len(new.dataset)}],
    }


def _others_size(there: ThereAlready, new: DatasetFiles) -> int:
    return int(there.info.get("download_size") or 0) if there.files and not there.files_of(new.split) else 0


def _pattern(split: str) -> dict[str, str]:
    return {"split": split, "path": f"data/{split}-*"}


def _size(rows: int) -> str:
    return next((name for limit, name in SIZES if rows < limit), "n>10M" if rows < 10**8 else "n>100M")


def _type(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__
