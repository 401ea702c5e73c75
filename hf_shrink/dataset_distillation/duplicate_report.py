"""The report on duplicates: who stays, who stands for whom, and a few pairs to look at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

EXAMPLES = 10
LONGEST = 200  # characters of a text in the report


@dataclass(frozen=True)
class Example:
    """A removed row beside the one that stands for it.

    Args:
        removed: Position of the removed row.
        kept: Position of the other.
        similarity: How alike they are.
        removed_text: What the removed row says; None where rows have no text.
        kept_text: What the other says.
    """

    removed: int
    kept: int
    similarity: float
    removed_text: str | None
    kept_text: str | None


@dataclass(frozen=True)
class Duplicates:
    """Duplicates among N rows.

    Args:
        method: How rows were compared.
        threshold: Least similarity.
        kept: Shape (K,), positions of the rows that stay, in order.
        removed: Shape (R,), positions of the others, in order.
        stand_ins: Shape (R,), the row that stays for each removed one: of those near it the most alike.
        similarity: Shape (R,), how alike the two are, from the threshold to 1.
        contradicting: Shape (R,), True where the labels of the two differ.
        examples: Pairs, the least alike first: they show what the threshold means.
    """

    method: str
    threshold: float
    kept: NDArray[np.int64]
    removed: NDArray[np.int64]
    stand_ins: NDArray[np.int64]
    similarity: NDArray[np.float64]
    contradicting: NDArray[np.bool_]
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        """Number of rows removed."""
        return len(self.removed)

    @property
    def sentence(self) -> str:
        """What was done, for a description or a card."""
        total = len(self.kept) + len(self.removed)
        compared = "equal text" if self.method == "exact" else f"{self.method} similarity of {self.threshold} or more"
        return (
            f"Deduplicated with hf_shrink: {len(self.removed):,} of {total:,} rows were left out for their {compared} "
            f"to one of the {len(self.kept):,} that stayed."
        )

    def table(self) -> str:
        """The examples as Markdown.

        Returns:
            One line a pair below a header; the sentence alone where nothing was removed.
        """
        if not self.examples:
            return self.sentence
        lines = ["| similarity | removed | kept |", "| ---: | --- | --- |"]
        for example in self.examples:
            removed = _cell(example.removed, example.removed_text)
            lines.append(f"| {example.similarity:.3f} | {removed} | {_cell(example.kept, example.kept_text)} |")
        return "\n".join([self.sentence, "", *lines])

    def to_json(self, path: str | Path) -> Path:
        """Write the report.

        Args:
            path: The file, such as "duplicates.json".

        Returns:
            The path written.
        """
        pairs = zip(
            self.removed.tolist(), self.stand_ins.tolist(), self.similarity.tolist(), self.contradicting.tolist(),
            strict=True,
        )  # fmt: skip
        report = {
            "method": self.method,
            "threshold": self.threshold,
            "rows": len(self.kept) + len(self.removed),
            "kept": len(self.kept),
            "removed": len(self.removed),
            "contradicting_labels": int(self.contradicting.sum()),
            "examples": [vars(example) for example in self.examples],
            "duplicates": [
                {"removed": a, "kept": b, "similarity": round(s, 6), "labels_differ": differ}
                for a, b, s, differ in pairs
            ],
        }
        Path(path).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)


def pick_examples(
    rows: Dataset,
    columns: Sequence[str],
    removed: NDArray[np.int64],
    kept: NDArray[np.int64],
    similarity: NDArray[np.float64],
) -> tuple[Example, ...]:
    """Choose the pairs that are least alike.

    Args:
        rows: The dataset.
        columns: Of the text; may be empty.
        removed: Positions of removed rows.
        kept: Those that stand for them.
        similarity: How alike they are.

    Returns:
        At most ten.
    """
    chosen = np.argsort(similarity, kind="stable")[:EXAMPLES]
    texts = rows.with_format(None).select_columns(list(columns))

    def text(row: int) -> str | None:
        return " / ".join(_text(texts[row][column]) for column in columns)[:LONGEST] if columns else None

    return tuple(
        Example(int(removed[n]), int(kept[n]), float(similarity[n]), text(int(removed[n])), text(int(kept[n])))
        for n in chosen
    )


def _text(cell: Any) -> str:
    return " ".join(map(str, cell)) if isinstance(cell, list) else str(cell or "")


def _cell(row: int, text: str | None) -> str:
    return f"row {row}" if text is None else f"{row}: " + text.replace("|", "\\|").replace("\n", " ")
