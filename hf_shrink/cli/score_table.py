"""How scores are spread, as a table in the terminal."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from hf_shrink.dataset_distillation.scores import COLUMN, SCORES

SHARES = {"min": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "max": 1.0}


def print_scores(rows: Dataset, scores: Sequence[str]) -> None:
    """Print a line a score.

    Args:
        rows: With their scores.
        scores: Names in `SCORES`.
    """
    picture = Table(header_style="bold")
    for title in ("score", "hard", *SHARES, "unscored"):
        picture.add_column(title, justify="left" if title in ("score", "hard") else "right")
    for name in dict.fromkeys(scores):
        values = np.asarray(rows.with_format("numpy")[f"{COLUMN}{name}"], dtype=np.float64)
        known = values[~np.isnan(values)]
        cells = [f"{np.quantile(known, share):.3g}" if len(known) else "–" for share in SHARES.values()]
        picture.add_row(name, SCORES[name].facts["hard"], *cells, str(len(values) - len(known)))
    Console().print(picture)
