"""What was measured while a dataset was made small; it travels in the dataset's own description."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_shrink.dataset_distillation.coverage import Coverage
from hf_shrink.dataset_distillation.curve import CurvePoint
from hf_shrink.errors import ShrinkError

SCHEMA_VERSION = 1
BLOCK = re.compile(r"```json hf_shrink\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Args:
        name: What was done, such as "exact duplicates".
        before: Rows before it.
        after: Rows after it.
        details: What it found; JSON values only.
    """

    name: str
    before: int
    after: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialScore:
    """What one arm of the bake-off scored on held-out rows.

    Args:
        name: The arm.
        score: Mean over the folds.
        gain: Over a stratified sample, mean over the folds.
        least_gain: The least that the gain is, with 90 % confidence.
    """

    name: str
    score: float
    gain: float
    least_gain: float


@dataclass(frozen=True)
class DatasetReport:
    """How a small dataset was made, and what it is worth.

    Args:
        source: Name of the dataset that it was made from.
        rows_before: Rows given.
        rows: Rows kept.
        budget: What was asked for, in words.
        method: The method asked for.
        selector: The method that chose the rows.
        options: Its options.
        seed: Of everything random.
        paper: Where the selector comes from.
        verdict: One sentence: why this selector.
        stages: The steps, in order.
        metric: What scores of held-out rows count: "accuracy", "micro F1" or "R²"; "" where nothing was measured.
        trials: The bake-off, the stratified sample first.
        curve: Score against rows.
        rows_for: "0.95" and "0.99" to the fewest rows measured that reach this share of what all rows reach, or None.
        coverage: Of all rows by those kept.
        stratified_coverage: By a stratified sample of as many.
        drift: Share of the rows kept that would have to change class for the classes to be as before.
        tokens: Tokens kept, under a budget of tokens.
        encoder: What made the embeddings.
        encode_seconds: What it took, on this machine; None where they were given.
        select_seconds: What choosing took, the bake-off and the curve included.
        cost_ratio: All of these against the time that training on fewer rows saves; None where it is not known.
        versions: Of the libraries.
    """

    source: str
    rows_before: int
    rows: int
    budget: str
    method: str
    selector: str
    options: Mapping[str, Any]
    seed: int
    paper: str | None
    verdict: str
    stages: tuple[Stage, ...] = ()
    metric: str = ""
    trials: tuple[TrialScore, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    rows_for: Mapping[str, int | None] = field(default_factory=dict)
    coverage: Coverage | None = None
    stratified_coverage: Coverage | None = None
    drift: float | None = None
    tokens: int | None = None
    encoder: str | None = None
    encode_seconds: float | None = None
    select_seconds: float = 0.0
    cost_ratio: float | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values.

        Returns:
            Field name to value.
        """
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def to_json(self, path: str | Path) -> Path:
        """Write the report.

        Args:
            path: The file.

        Returns:
            The same path.
        """
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetReport":
        """Build from what `to_dict` made.

        Args:
            values: Field name to JSON value.

        Returns:
            The report.

        Raises:
            ShrinkError: If it was written in another form than this version reads.
        """
        known = dict(values)
        if (version := known.pop("schema_version", None)) != SCHEMA_VERSION:
            raise ShrinkError(
                f"`report` must be of schema version {SCHEMA_VERSION}, got {version}. Use the version of hf_shrink "
                "that wrote it."
            )
        for name, kind in (("stages", Stage), ("trials", TrialScore), ("curve", CurvePoint)):
            known[name] = tuple(kind(**entry) for entry in known.get(name) or ())
        for name in ("coverage", "stratified_coverage"):
            known[name] = None if known.get(name) is None else Coverage(**known[name])
        return cls(**known)

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetReport":
        """Read the report of a dataset that `distill_dataset` made, also one that was pushed and loaded again.

        Args:
            dataset: The small dataset.

        Returns:
            Its report.

        Raises:
            ShrinkError: If it carries none.
        """
        found = BLOCK.search(dataset.info.description or "")
        if found is None:
            raise ShrinkError(
                "`dataset` must carry the report of distill_dataset() in its description, got one without. It is lost "
                "by Dataset.push_to_hub(): push with push_dataset_to_hub(), which keeps it."
            )
        return cls.from_dict(json.loads(found[1]))

    def to_markdown(self) -> str:
        """The report in words and tables, as the card shows it.

        Returns:
            Markdown.
        """
        from hf_shrink.dataset_distillation.report_text import report_text

        return report_text(self)

    def description(self) -> str:
        """What a dataset carries: the words for readers, and the values for `of`.

        Returns:
            Markdown.
        """
        values = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        details = f"<details><summary>The report as JSON</summary>\n\n```json hf_shrink\n{values}\n```\n\n</details>"
        return f"{self.to_markdown()}\n\n{details}"

    def plot(self, path: str | Path) -> Path:
        """Draw the curve of the score against the rows kept.

        Args:
            path: The picture; its ending chooses the format (.png, .svg, .pdf).

        Returns:
            The path written.
        """
        from hf_shrink.dataset_distillation.pictures import plot_curve

        return plot_curve(self, path)
