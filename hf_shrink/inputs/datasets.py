"""A dataset named by a path or a Hub id becomes rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    ReadInstruction,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetsError

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.remote import LOAD_ERRORS, explain_dataset_error, explain_hub_error, looks_like_path

FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
SPLITS = ("train", "validation", "test")


def load_rows(dataset: Any, split: str | None = None, **kwargs: Any) -> Dataset:
    """Load one split of a dataset.

    Args:
        dataset: A `Dataset`; a `DatasetDict`; a folder of parquet, CSV or JSON files named after their splits, or one
            that `save_to_disk` wrote; one such file; or a Hub id.
        split: Name of the split, or a slice such as "test[:100]"; may be left out where there is one split only.
        **kwargs: Handed to `datasets.load_dataset`, such as `name` (the configuration) or `revision`.

    Returns:
        The rows.

    Raises:
        ShrinkError: If there is no such dataset, it may not be read, or it lacks the split.
    """
    if isinstance(dataset, Dataset):
        return _same_split(dataset, split)
    if isinstance(dataset, DatasetDict):
        return _pick(dataset, split, dataset_name(dataset))
    if isinstance(dataset, (IterableDataset, IterableDatasetDict)):
        raise ShrinkError(
            "`dataset` must have a length, got a stream. Take what you need of it: "
            "Dataset.from_list(list(stream.take(1000)))."
        )
    if not isinstance(dataset, (str, Path)):
        raise ShrinkError(
            f"`dataset` must be a Dataset, a path or a Hub id, got {type(dataset).__name__}. Give one of these."
        )
    if not looks_like_path(dataset):
        return _pick(_load_from_hub(str(dataset), kwargs), split, str(dataset))
    path = Path(dataset).expanduser()
    if path.is_file():
        return _pick(_load_file(path, kwargs), split, path.name)
    if not path.is_dir():
        raise ShrinkError(
            f"`dataset` must be a Dataset, a path or a Hub id, but there is nothing at {dataset}. Check the path."
        )
    return _pick(_load_folder(path, kwargs), split, path.name)


def dataset_name(dataset: Any) -> str:
    """What a report or a card may call a dataset.

    Args:
        dataset: What `load_rows` takes.

    Returns:
        Hub id, name of the file or folder, or the name that the dataset itself carries; never a path of this machine.
    """
    if isinstance(dataset, (str, Path)):
        return Path(dataset).expanduser().resolve().name if looks_like_path(dataset) else str(dataset)
    first = next(iter(dataset.values()), None) if isinstance(dataset, Mapping) else dataset
    name = first.info.dataset_name if isinstance(first, Dataset) else None
    return name or type(dataset).__name__


def _same_split(rows: Dataset, split: str | None) -> Dataset:
    if split is not None and split != str(rows.split):
        raise ShrinkError(
            f"`split` must be left out for a Dataset, which is one split already ({rows.split}), got {split!r}. "
            "Give the dataset of that split."
        )
    return rows


def _pick(splits: DatasetDict, split: str | None, name: str) -> Dataset:
    there = list(splits)
    if split is None:
        if len(there) != 1:
            raise ShrinkError(f"`split` must be given, because {name} has several: {there}. Choose one of these.")
        return splits[there[0]]
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({key: len(rows) for key, rows in splits.items()})
    except (AssertionError, ValueError) as error:
        raise ShrinkError(
            f"`split` must be one of {there} (the splits of {name}), got {split!r}. Choose one of these."
        ) from error
    if split in splits:
        return splits[split]
    rows = [splits[part.splitname] for part in parts]
    return concatenate_datasets(
        [r.select(range(p.from_ or 0, len(r) if p.to is None else p.to)) for r, p in zip(rows, parts, strict=True)]
    )


def _load_from_hub(repo_id: str, kwargs: Mapping[str, Any]) -> DatasetDict:
    try:
        return load_dataset(repo_id, **kwargs)
    except (DatasetsError, *LOAD_ERRORS) as error:
        raise ShrinkError(explain_dataset_error(error, repo_id, kwargs.get("token"))) from error


def _load_file(path: Path, kwargs: Mapping[str, Any]) -> DatasetDict:
    if path.suffix not in FORMATS:
        raise ShrinkError(
            f"`dataset` must be a file of type {sorted(FORMATS)}, got {path.name}. Convert it to parquet."
        )
    split = path.stem if path.stem in SPLITS else "train"
    return _load(FORMATS[path.suffix], str(path), data_files={split: str(path)}, **kwargs)


def _load_folder(path: Path, kwargs: Mapping[str, Any]) -> DatasetDict:
    if (path / "dataset_dict.json").exists():
        return load_from_disk(path)
    if (path / "state.json").exists():
        rows = load_from_disk(path)
        return DatasetDict({str(rows.split or "train"): rows})
    return _load(str(path.resolve()), str(path), **kwargs)


def _load(builder: str, source: str, **kwargs: Any) -> DatasetDict:
    try:
        return load_dataset(builder, **kwargs)
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        raise ShrinkError(
            f"`dataset` must hold parquet, CSV or JSON files, but {source} has none. Save rows with to_parquet()."
        ) from error
    except (DatasetsError, *LOAD_ERRORS) as error:
        raise ShrinkError(explain_hub_error(error, "dataset", source, "dataset")) from error
