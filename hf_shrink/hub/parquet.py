"""A dataset's rows as parquet files that lack nothing: pictures and sounds that lie elsewhere are put inside."""

from pathlib import Path

from datasets import Dataset, config
from datasets.features.features import require_storage_embed
from datasets.table import embed_table_storage

SHARD_BYTES = 500 * 10**6
ROWS_AT_ONCE = 100


def write_shards(dataset: Dataset, folder: Path, split: str) -> dict[str, Path]:
    """Write a split.

    Args:
        dataset: Its rows.
        folder: Where to.
        split: Its name.

    Returns:
        Path in the repository, such as "data/train-00000-of-00001.parquet", to the file here.
    """
    dataset = dataset.with_format(None)
    count = max(1, min(len(dataset), -(-row_bytes(dataset) // SHARD_BYTES)))
    files = {}
    for index in range(count):
        name = f"{split}-{index:05d}-of-{count:05d}.parquet"
        shard = dataset.shard(count, index, contiguous=True) if count > 1 else dataset
        _embed(shard).to_parquet(folder / name, batch_size=config.DEFAULT_MAX_BATCH_SIZE)
        files[f"data/{name}"] = folder / name
    return files


def row_bytes(dataset: Dataset) -> int:
    """Size of a dataset's rows in memory.

    Args:
        dataset: The rows; a selection counts its share of the table that it stands on.

    Returns:
        Bytes.
    """
    table = dataset.data
    return round(table.nbytes * len(dataset) / table.num_rows) if table.num_rows else 0


def _embed(shard: Dataset) -> Dataset:
    if not any(require_storage_embed(feature) for feature in shard.features.values()):
        return shard
    embedded = shard.with_format("arrow").map(
        embed_table_storage, batched=True, batch_size=ROWS_AT_ONCE, keep_in_memory=True
    )
    return embedded.with_format(None)
