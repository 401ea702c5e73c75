"""Real rows with wrong labels, from the package's own data."""

from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

import hf_shrink

BANKING77 = Path(hf_shrink.__file__).parent / "data" / "banking77" / "train.parquet"


def flipped_rows(classes: int, rows: int, share: float = 0.2, seed: int = 0) -> tuple[Dataset, NDArray[np.bool_]]:
    """Rows of banking77's first classes, some with the label of another, and which these are."""
    generator = np.random.default_rng(seed)
    given = Dataset.from_parquet(str(BANKING77)).filter(lambda row: row["label"] < classes)
    given = given.shuffle(seed=seed).select(range(rows)).flatten_indices()
    labels, wrong = np.array(given["label"]), generator.random(rows) < share
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, wrong.sum())) % classes
    return Dataset.from_dict({"text": given["text"], "label": labels.tolist()}), wrong
