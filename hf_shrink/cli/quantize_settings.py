"""Settings of `hf-shrink quantize`: what was asked for, and what is refused before anything is loaded."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.provenance import HUB_ID
from hf_shrink.quantization import QUANTIZERS
from hf_shrink.quantization.automatic import usable_methods
from hf_shrink.quantization.output_folder import check_target

AUTO = "auto"
MAPS = (".json", ".png", ".svg", ".pdf")  # forms of --sensitivity
UNLABELLED = ("agreement", "kl")  # what --max-drop can count without labels, and a report does not


@dataclass(frozen=True)
class Quantization:
    """What the command was asked for; see its options."""

    model: str
    output_dir: Path | None = None
    method: str = AUTO
    options: Mapping[str, Any] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    task: str | None = None
    calibration_dataset: str | None = None
    calibration_split: str = "train"
    calibration_size: int = 256
    dataset: str | None = None
    split: str = "test"
    metric: str | None = None
    max_drop: float | None = None
    sensitivity: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    max_length: int | None = None
    seed: int = 0
    push: str | None = None
    private: bool | None = None

    @property
    def known_map(self) -> Path | None:
        """The file of a map that was made before, which the search goes by."""
        return self.sensitivity if self.sensitivity is not None and self.sensitivity.exists() else None

    @property
    def reading(self) -> dict[str, Any]:
        """How rows are read."""
        return {
            "text_column": self.text_column,
            "label_column": self.label_column,
            "max_length": self.max_length,
        }


def check_options(options: Quantization) -> None:
    """Refuse what cannot be, before anything is loaded.

    Args:
        options: What was asked for.

    Raises:
        ShrinkError: If an option lacks what it goes with, or the Hub id is none.
    """
    check_method(options)
    if options.output_dir is not None:
        check_target(options.output_dir)
    for name in ("max_drop", "metric"):
        if getattr(options, name) is not None and options.dataset is None:
            raise ShrinkError(
                f"`{name}` must be left out without rows to measure on, got {getattr(options, name)!r}. Name some "
                "with --dataset."
            )
    _check_sensitivity(options)
    if options.private is not None and options.push is None:
        raise ShrinkError("`private` must be left out without --push, which makes the repository. Add --push.")
    if options.push is not None and not HUB_ID.fullmatch(options.push):
        raise ShrinkError(f"`push` must be written as user/name, got {options.push!r}. Choose another name.")


def _check_sensitivity(options: Quantization) -> None:
    path = options.sensitivity
    if path is None:
        return
    if path.suffix not in MAPS or not path.absolute().parent.is_dir():
        raise ShrinkError(
            f"`sensitivity` must be a file in a folder that is there, ending in one of {MAPS}, got {path}. Choose "
            "another name."
        )
    if path.exists() and (path.suffix != ".json" or options.max_drop is None):
        raise ShrinkError(
            f"`sensitivity` must be a new file, or with --max-drop a map in .json that was made before, but {path} is "
            "there. Choose another name."
        )
    if options.calibration_dataset is None and options.dataset is None:
        raise ShrinkError(
            "`sensitivity` must be left out without rows to measure it on. Name some with --calibration-dataset or "
            "--dataset."
        )


def check_method(options: Quantization) -> None:
    """Refuse a method that is not there, with those that can run here.

    Args:
        options: What was asked for.

    Raises:
        ShrinkError: If there is no such method.
    """
    if options.method == AUTO or options.method in QUANTIZERS:
        return
    close = difflib.get_close_matches(options.method, [AUTO, *QUANTIZERS], n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "See hf-shrink quantize MODEL --dry-run for all."
    raise ShrinkError(
        f"`method` must be {AUTO} or, of those that can run here, one of {usable_methods()}, got "
        f"{options.method!r}. {hint}"
    )
