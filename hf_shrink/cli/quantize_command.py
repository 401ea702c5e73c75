"""`hf-shrink quantize`: 8 or 4 bits, proved to load, within an accuracy if asked for."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.assignments import read_assignments
from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn

KEEPING, SHARING = "How much of its quality it keeps", "Sharing"
WAYS = (
    "Bytes alone: hf-shrink quantize MODEL -o out. Measured against the original: --dataset DATA. Within half a point "
    "of accuracy: --dataset DATA --max-drop 0.005. What each method would write here, without writing: --dry-run."
)


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("quantize", epilog=WAYS)(quantize_model)


def quantize_model(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of the float model.")],
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="New or empty folder for the quantized model, its report and card."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="auto takes what serves best here, and says why; --dry-run shows the names and what can run here."
        ),
    ] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An option of the method, such as group_size=64 (weights); may be repeated."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Full name of a module that stays in float; may be repeated."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What the model is for, where its class does not tell; default: found.")
    ] = None,
    calibration_dataset: Annotated[
        str | None,
        typer.Option(
            help="Folder, file or Hub id of rows like those to come, for methods that read some; labels are not read."
        ),
    ] = None,
    calibration_split: Annotated[str, typer.Option(help="Split of these rows.")] = "train",
    calibration_size: Annotated[int, typer.Option(min=1, help="Rows that are read to calibrate.")] = 256,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Folder, file or Hub id of labelled rows to compare the original and the quantized model on.",
            rich_help_panel=KEEPING,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of these rows.", rich_help_panel=KEEPING)] = "test",
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric of the report and of --max-drop, which also knows agreement (share of equal decisions) and "
            "kl (nats); default: accuracy, mse for regression, perplexity for language models.",
            rich_help_panel=KEEPING,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="What the metric may lose on --dataset, in its own unit: 0.005 is half a point of accuracy. Modules "
            "stay in float until it is kept; if it cannot be, the best is left and the exit code is 1.",
            rich_help_panel=KEEPING,
        ),
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            help="Also write there what each module costs if it alone is quantized: .json, or a picture (.png, .svg, "
            ".pdf). It reads the rows to calibrate with, or else those of --dataset. A .json that is there already is "
            "what --max-drop goes by.",
            rich_help_panel=KEEPING,
        ),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_length: MaxLength = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print how many bytes each method would write, and whether it can run here; stop there."
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME",
            help="Upload the folder there in the end; not where --max-drop was missed.",
            rich_help_panel=SHARING,
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who may see a repository made now.", rich_help_panel=SHARING),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write a quantized copy of a model, and prove in a fresh process that it loads and answers as the model."""
    if output_dir is None and not dry_run:
        raise typer.BadParameter("must be given; only --dry-run does without.", param_hint="--output-dir")

    from hf_shrink.cli.quantize_settings import Quantization
    from hf_shrink.cli.quantize_stages import print_methods, run_quantization

    options = Quantization(
        model=model,
        output_dir=output_dir,
        method=method,
        options=read_assignments(option, "--option", "group_size=64"),
        ignore=tuple(ignore or ()),
        task=task,
        calibration_dataset=calibration_dataset,
        calibration_split=calibration_split,
        calibration_size=calibration_size,
        dataset=dataset,
        split=split,
        metric=metric,
        max_drop=max_drop,
        sensitivity=sensitivity,
        text_column=text_column,
        label_column=label_column,
        max_length=max_length,
        seed=seed,
        push=push,
        private=private,
    )
    if dry_run:
        print_methods(options)
    else:
        run_quantization(options)
