"""Dataset cards: the features and files that `load_dataset` reads, for all splits of a repository."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo

from hf_shrink.errors import ShrinkError
from hf_shrink.hub.commit import Destination
from hf_shrink.hub.files import CARD
from hf_shrink.hub.parquet import row_bytes
from hf_shrink.hub.rendering import TAG, hub_ids, is_ours, render, split_card
from hf_shrink.inputs.encoding import SOFT_LABEL

SPLIT = re.compile(r"\w+(\.\w+)*")
SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.parquet")
DATA = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".zip", ".tar")
DEFAULT = "default"  # the configuration that load_dataset takes without a name
STEPS = "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"


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

    @property
    def pattern(self) -> dict[str, str]:
        """The split and its files, as `load_dataset` finds them; a file that is no shard is found by its name."""
        names = [path for path in self.shards if not SHARD.fullmatch(path)]
        return {"split": self.split, "path": names[0]} if names else _pattern(self.split)


@dataclass(frozen=True)
class ThereAlready:
    """What the repository held before.

    Args:
        card: Its README.md; empty where there is none.
        files: Its files, with their bytes.
    """

    card: str = ""
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """The card's metadata."""
        return split_card(self.card)[0]

    @property
    def infos(self) -> dict[str, dict[str, Any]]:
        """`dataset_info` of each configuration."""
        return {info.get("config_name", DEFAULT): info for info in _as_list(self.metadata.get("dataset_info"))}

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The files of each configuration, as `load_dataset` finds them."""
        declared = {config["config_name"]: config for config in _as_list(self.metadata.get("configs"))}
        found = dict.fromkeys(match[1] for path in self.files if (match := SHARD.fullmatch(path)))
        if not declared and found:  # without a declaration load_dataset goes by the names of the files
            declared[DEFAULT] = {"config_name": DEFAULT, "data_files": [_pattern(split) for split in found]}
        return declared

    def files_of(self, split: str) -> list[str]:
        """Files that stand for a split.

        Args:
            split: Its name.

        Returns:
            Paths in the repository that its pattern takes in.
        """
        return [path for path in self.files if re.fullmatch(rf"data/{re.escape(split)}-[^/]*", path)]


def read_repository(destination: Destination, sha: str) -> ThereAlready:
    """Read what a dataset's repository holds.

    Args:
        destination: The repository.
        sha: The commit to read.

    Returns:
        Its card and files.
    """
    files = destination.files(sha)
    return ThereAlready(destination.text(CARD, sha) if CARD in files else "", files)


def render_dataset_card(new: DatasetFiles, there: ThereAlready, repo_id: str, *, title: str | None = None) -> str:
    """Write the card of a dataset.

    Args:
        new: The split that is pushed.
        there: What the repository holds; its other splits and configurations stay on the card.
        repo_id: The repository.
        title: What the card is headed; None takes the repository's name.

    Returns:
        The text of README.md. Where somebody else wrote the one there, it keeps their words.
    """
    config = _config(new, there)
    splits = _splits(new, there)
    rows = {row["name"]: row["num_examples"] for row in splits}
    complete = set(rows) == {entry["split"] for entry in config["data_files"]}
    info = _info(new, there, splits if complete else [])
    old = there.metadata
    sources = [new.source] if new.source else list(_as_list(old.get("source_datasets")))
    metadata = {
        **old,
        "license": new.license or old.get("license"),
        "source_datasets": hub_ids(sources),
        "annotations_creators": _annotators(new.dataset) or old.get("annotations_creators"),
        "size_categories": [_size(sum(rows.values()))] if complete else old.get("size_categories"),
        "tags": list(dict.fromkeys([*_as_list(old.get("tags")), *([] if _has_own_words(there) else [TAG])])),
        "dataset_info": _one_or_many({**there.infos, DEFAULT: info}),
        "configs": list({**there.configs, DEFAULT: config}.values()),
    }
    if _has_own_words(there):
        return render("own_words", metadata, words=split_card(there.card)[1])
    return render(
        "dataset_card",
        metadata,
        title=title or repo_id.split("/")[-1],
        repo_id=repo_id,
        sources=sources,
        description=(new.dataset.info.description or "").strip(),
        splits=rows,
        columns={name: _type(feature) for name, feature in new.dataset.features.items()},
    )


def _splits(new: DatasetFiles, there: ThereAlready) -> list[dict[str, Any]]:
    """What is known of the rows of each split, `train` first."""
    others = [row for row in there.infos.get(DEFAULT, {}).get("splits") or () if row["name"] != new.split]
    row = {"name": new.split, "num_bytes": row_bytes(new.dataset), "num_examples": len(new.dataset)}
    return sorted([*others, row], key=lambda split: split["name"] != "train")


def _info(new: DatasetFiles, there: ThereAlready, splits: list[dict[str, Any]]) -> dict[str, Any]:
    """`dataset_info` of the default configuration; load_dataset refuses a list of splits that lacks one."""
    features = DatasetInfo(features=new.dataset.features)._to_yaml_dict()["features"]  # the form load_dataset reads
    others = [row["name"] for row in splits if row["name"] != new.split]
    if others and there.infos[DEFAULT].get("features") != features:
        raise ShrinkError(
            f"`dataset` must have the features of the splits that the repository holds already, {others}, got "
            f"{list(new.dataset.features)}. Cast it, or push it elsewhere."
        )
    # load_dataset hands the description on as `info.description`: how the rows were made stays with them.
    described = {"description": new.dataset.info.description} if new.dataset.info.description else {}
    if not splits:
        return {**described, "features": features}
    kept = sum(there.files[path] for name in others for path in there.files_of(name))
    return {
        **described,
        "features": features,
        "splits": splits,
        "download_size": kept + sum(path.stat().st_size for path in new.shards.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _config(new: DatasetFiles, there: ThereAlready) -> dict[str, Any]:
    """The default configuration's files: those of its other splits, and the new ones."""
    before = there.configs.get(DEFAULT, {"config_name": DEFAULT})
    files = _as_list(before.get("data_files"))
    undeclared = [] if there.configs else [path for path in there.files if path.endswith(DATA)]
    if undeclared or not all(isinstance(entry, Mapping) for entry in files):
        raise ShrinkError(
            "`repo_id` must hold a dataset whose card names the files of each split, or load_dataset would lose "
            f"{undeclared[:3] or files}. Name the splits under `configs` there, or push to another repository."
        )
    others = [entry for entry in files if entry["split"] != new.split]
    return {
        **before,
        "data_files": sorted([*others, new.pattern], key=lambda entry: entry["split"] != "train"),
    }


def _annotators(dataset: Dataset) -> list[str]:
    """Who made the labels, where the rows tell it."""
    return ["machine-generated"] if SOFT_LABEL in dataset.column_names else []


def _has_own_words(there: ThereAlready) -> bool:
    return bool(there.card.strip()) and not is_ours(there.card)


def _one_or_many(infos: Mapping[str, dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    if len(infos) == 1:
        return next(iter(infos.values()))
    return [{"config_name": name, **info} for name, info in sorted(infos.items())]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _pattern(split: str) -> dict[str, str]:
    return {"split": split, "path": f"data/{split}-*"}


def _size(rows: int) -> str:
    """The Hub's class of a number of rows."""
    for power, step in enumerate(STEPS, start=3):
        if rows < 10**power:
            return f"{STEPS[power - 4]}<n<{step}" if power > 3 else f"n<{step}"
    return f"n>{STEPS[-1]}"


def _type(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__
