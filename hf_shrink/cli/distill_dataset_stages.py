"""What `hf-shrink distill-dataset` does: check, choose, write the card, print the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.markdown import Markdown

from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.dataset_distillation import DatasetReport, distill_dataset
from hf_shrink.dataset_distillation.budget import read_budget
from hf_shrink.errors import ShrinkError
from hf_shrink.hub.dataset_folder import folder_card
from hf_shrink.hub.files import CARD
from hf_shrink.inputs import load_processing_class, load_rows
from hf_shrink.inputs.remote import looks_like_path

ROWS = "train.parquet"
ENCODED = ("embeddings", "exclude", "targets")  # begin the names of the folders that a run leaves when it is cut off
LABEL_NOISE: dict[str, bool | str] = {
    "auto": "auto",
    "yes": True,
    "true": True,
    "no": False,
    "false": False,
}  # YAML reads yes as true


@dataclass(frozen=True)
class DatasetDistillation:
    """What the command was asked for; see its options."""

    dataset: str
    budget: str
    output_dir: Path
    split: str = "train"
    method: str = "auto"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    text_column: Sequence[str] | None = None
    label_column: str | None = None
    exclude: Sequence[str] = ()
    exclude_split: str = "test"
    duplicates: str = "exact"
    label_noise: str = "auto"
    targets: str | None = None
    targets_split: str = "validation"
    teacher: str | None = None
    soft_labels: bool = False
    encoder: str | None = None
    tokenizer: str | None = None
    curve: bool = True
    batch_size: int = 64
    max_length: int | None = None
    source: str | None = None
    license: Sequence[str] | None = None
    seed: int = 0


def run_dataset_distillation(options: DatasetDistillation) -> Dataset:
    """Choose rows, write them with report, pictures and card, and print what was measured.

    Args:
        options: What to run.

    Returns:
        The rows.
    """
    budget = parse_budget(options.budget)
    label_noise = _label_noise(options.label_noise)
    _check_tokenizer(options, budget)
    _check_folder(options.output_dir)
    rows = load_rows(options.dataset, options.split)
    small = distill_dataset(
        rows,
        budget,
        method=options.method,
        method_kwargs=options.method_options,
        text_column=options.text_column,
        label_column=options.label_column,
        encoder=options.encoder,
        teacher=options.teacher,
        soft_labels=options.soft_labels,
        exclude=[load_rows(test, options.exclude_split) for test in options.exclude] or None,
        duplicates=None if options.duplicates == "none" else options.duplicates,
        label_noise=label_noise,
        targets=None if options.targets is None else load_rows(options.targets, options.targets_split),
        processing_class=None if options.tokenizer is None else load_processing_class(options.tokenizer),
        curve=options.curve,
        batch_size=options.batch_size,
        max_length=options.max_length,
        output_dir=options.output_dir,
        seed=options.seed,
    )
    source = options.source or (None if looks_like_path(options.dataset) else options.dataset)
    card = folder_card(small, options.output_dir / ROWS, source=source, license=options.license)
    (options.output_dir / CARD).write_text(card, encoding="utf-8")
    Console().print(Markdown(DatasetReport.of(small).to_markdown()))
    return small


def parse_budget(text: str) -> float | int | dict[str, int]:
    """Read a budget as it is written on the command line.

    Args:
        text: Such as "0.1", "5000", "per_class=50" or "tokens=2000000".

    Returns:
        What `distill_dataset` takes.

    Raises:
        ShrinkError: If it is none of these.
    """
    name, equals, value = text.rpartition("=")
    try:
        number = int(value)
    except ValueError:
        number = _share(value)
    budget = {name.strip().replace("-", "_"): number} if equals else number
    try:
        read_budget(budget)
    except ShrinkError as error:
        raise ShrinkError(
            f"`budget` must be a share in (0, 1] or a count of at least 1, got {text!r}. Write a share as 0.1, a "
            "count as 5000, rows a class as per_class=50, tokens as tokens=2000000."
        ) from error
    return budget


def _share(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _label_noise(text: str) -> bool | str:
    if text.lower() not in LABEL_NOISE:
        raise ShrinkError(f"`label_noise` must be yes, no or auto, got {text!r}. Choose one of these.")
    return LABEL_NOISE[text.lower()]


def _check_tokenizer(options: DatasetDistillation, budget: Any) -> None:
    """A tokenizer counts tokens, and serves nothing else."""
    counts = isinstance(budget, dict) and "tokens" in budget
    if counts and options.tokenizer is None:
        raise ShrinkError(
            "`tokenizer` must be given for a budget of tokens, to count them. Name the model that will be trained."
        )
    if not counts and options.tokenizer is not None:
        raise ShrinkError(
            f"`tokenizer` must be left out without a budget of tokens, which it would count, got "
            f"{options.tokenizer!r}. Write the budget as tokens=2000000."
        )


def _check_folder(folder: Path) -> None:
    """New or empty, or with nothing but the vectors of a run that was cut off: it goes on."""
    if not (folder.is_dir() and all(path.is_dir() and path.name.startswith(ENCODED) for path in folder.iterdir())):
        check_new_folder(folder)
