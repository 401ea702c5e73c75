"""What was measured of an original and its smaller descendants; cards, plots, tables and the command line read it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.environment import Environment
from hf_shrink.evaluation.latency import Latency
from hf_shrink.evaluation.provenance import Provenance

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One model of a report; what was not measured, or is undefined, is None.

    Args:
        name: What the report calls it; never a path of this machine.
        method: How it was made from the one before, such as "onnx-int8"; None for the original.
        value: The report's metric on its rows.
        low: Lower end of the value's 95 % interval.
        high: Upper end.
        agreement: Share of predictions that equal the original's, in [0, 1].
        p_value: Exact McNemar test against the original; only where every row is right or wrong.
        difference_low: Lower end of the 95 % interval of this value less the original's, on the same rows.
        difference_high: Upper end.
        size_bytes: Weight files on disk.
        parameters: Elements, shared ones once.
        macs: Multiply-accumulates of one forward pass.
        macs_note: What the MACs were counted on, where it is not the model itself.
        latency: Time of one forward pass.
        peak_memory_bytes: Resident memory that loading and one forward pass add, at its peak.
    """

    name: str
    method: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    agreement: float | None = None
    p_value: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    size_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    macs_note: str | None = None
    latency: Latency | None = None
    peak_memory_bytes: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Entry":
        """Build from what `dataclasses.asdict` made.

        Args:
            values: Field name to JSON value.

        Returns:
            The entry.
        """
        latency = values.get("latency")
        return cls(**{**values, "latency": None if latency is None else Latency(**latency)})


@dataclass(frozen=True)
class ShrinkReport:
    """Quality and cost of an original and of what was made from it, measured in one run on the same rows.

    Args:
        task: Name of the task, such as "single_label_classification".
        metric: Name of the metric.
        dataset: Name of the data that the models were compared on.
        split: Its split, where it is known.
        rows: Rows compared on.
        entries: The original first, then the smaller ones in the order in which they were made.
        higher_is_better: False for errors and perplexity.
        percent: Whether the metric is a share that is printed in percent.
        interval: How the intervals were made, such as "Wilson 95 %".
        macs_shape: Rows and tokens of the forward pass that the MACs were counted on.
        provenance: Where the models come from.
        environment: The machine and the versions.

    Raises:
        ShrinkError: If there is no entry.
    """

    task: str
    metric: str
    dataset: str
    split: str | None
    rows: int
    entries: tuple[Entry, ...]
    higher_is_better: bool = True
    percent: bool = True
    interval: str | None = None
    macs_shape: tuple[int, int] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    environment: Environment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        if not self.entries:
            raise ShrinkError("`entries` must hold the original at least, got none. Make a report with compare().")

    @property
    def original(self) -> Entry:
        """The model that the others are held against."""
        return self.entries[0]

    @property
    def shrunk(self) -> Entry:
        """The last model made."""
        return self.entries[-1]

    @property
    def retention(self) -> float | None:
        """Share of the original's quality that the last model keeps; 1 is all of it."""
        return self.retention_of(self.shrunk)

    @property
    def size_ratio(self) -> float | None:
        """How many times smaller on disk the last model is."""
        return self.size_ratio_of(self.shrunk)

    @property
    def speedup(self) -> float | None:
        """How many times faster the last model is, by the median latency."""
        return self.speedup_of(self.shrunk)

    @property
    def agreement(self) -> float | None:
        """Share of the last model's predictions that equal the original's, in [0, 1]."""
        return self.shrunk.agreement

    def retention_of(self, entry: Entry) -> float | None:
        """Share of the original's quality that a model keeps.

        Args:
            entry: One of the report's.

        Returns:
            value / original, or original / value where lower is better; None unless both are above 0.
        """
        pair = (entry.value, self.original.value)
        return _ratio(*pair) if self.higher_is_better else _ratio(*reversed(pair))

    def size_ratio_of(self, entry: Entry) -> float | None:
        """How many times smaller on disk a model is.

        Args:
            entry: One of the report's.

        Returns:
            Bytes of the original over its bytes, or None.
        """
        return _ratio(self.original.size_bytes, entry.size_bytes)

    def speedup_of(self, entry: Entry) -> float | None:
        """How many times faster a model is.

        Args:
            entry: One of the report's.

        Returns:
            Median latency of the original over its own, or None.
        """
        if entry.latency is None or self.original.latency is None:
            return None
        return _ratio(self.original.latency.p50_ms, entry.latency.p50_ms)

    def verdict(self, entry: int = -1) -> str:
        """Say in a sentence whether a model lost against the original.

        Args:
            entry: Its position in `entries`.

        Returns:
            Such as "student lost 0.9 points (p = 0.03): a real loss."
        """
        from hf_shrink.evaluation.table import verdict

        return verdict(self, self.entries[entry])

    def to_json(self, path: str | Path) -> Path:
        """Write the report.

        Args:
            path: The file, such as "shrink_report.json".

        Returns:
            The path written.

        Raises:
            ShrinkError: If a number is NaN or infinite: JSON has neither, and neither was measured.
        """
        try:
            text = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2, allow_nan=False)
        except ValueError as error:
            bad = [f"{e.name}: {key}" for e in self.entries for key, value in asdict(e).items() if _not_finite(value)]
            raise ShrinkError(
                f"`entries` must hold finite numbers, got NaN or infinity in {bad}. "
                "Use None for what was not measured."
            ) from error
        path = Path(path)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, path: str | Path) -> "ShrinkReport":
        """Read a report that `to_json` wrote; equal to the one written.

        Args:
            path: The file.

        Returns:
            The report.

        Raises:
            ShrinkError: If the file is no report, or one of a newer hf_shrink.
        """
        values = _read(Path(path))
        try:
            values["entries"] = tuple(Entry.from_dict(entry) for entry in values["entries"])
            values["provenance"] = Provenance.from_dict(values["provenance"])
            values["environment"] = None if values["environment"] is None else Environment(**values["environment"])
            values["macs_shape"] = None if values["macs_shape"] is None else tuple(values["macs_shape"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ShrinkError(f"`path` must be a report of hf_shrink, got {path}: {error}. Write it again.") from error

    def to_markdown(self) -> str:
        """The report as text for a README.

        Returns:
            One table, the conditions of the measurement, and a verdict for each smaller model.
        """
        from hf_shrink.evaluation.table import markdown

        return markdown(self)

    def plot(self, path: str | Path) -> Path:
        """Draw quality against size.

        Args:
            path: The picture; its ending chooses the format (.png, .svg, .pdf).

        Returns:
            The path written.
        """
        from hf_shrink.evaluation.plots import plot_pareto

        return plot_pareto(self, path)


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or denominator is None or numerator <= 0 or denominator <= 0:
        return None
    return numerator / denominator


def _not_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_not_finite(inner) for inner in value.values())
    return isinstance(value, float) and not math.isfinite(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ShrinkError(f"`path` must be a file that exists, got {path}. Write it with report.to_json().") from error
    except json.JSONDecodeError as error:
        raise ShrinkError(f"`path` must hold JSON, got {path}: {error}. Write it with report.to_json().") from error
    version = values.pop("schema_version", None) if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise ShrinkError(
            f"`path` must be a report of schema {SCHEMA_VERSION}, got {version} in {path}. "
            "Update hf_shrink, or compare again."
        )
    return values
