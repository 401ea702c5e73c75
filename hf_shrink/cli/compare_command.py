"""`hf-shrink compare`: measure smaller models against their original."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("compare")(compare_models)


def compare_models(
    original: Annotated[str, typer.Argument(help="Folder or Hub id of the original.")],
    shrunk: Annotated[
        list[str], typer.Argument(help="Folders or Hub ids of the smaller models, in the order of making.")
    ],
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the data.")],
    split: Annotated[str, typer.Option(help="Split to compare on.")] = "test",
    metric: Annotated[str, typer.Option(help="Name of a metric.")] = "accuracy",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a batch, for the quality.")] = 32,
    max_length: MaxLength = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for the latency; default: all.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the report there.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw quality against size there (png, pdf, svg).")] = None,
    config: ConfigFile = None,
) -> None:
    """Measure quality (with interval), size, parameters, MACs, latency and memory, and print one table."""
    from hf_shrink.cli.report_table import print_report
    from hf_shrink.evaluation import compare

    report = compare(
        original,
        shrunk,
        dataset,
        split=split,
        metric=metric,
        text_column=text_column,
        label_column=label_column,
        batch_size=batch_size,
        max_length=max_length,
        threads=threads,
    )
    if json is not None:
        report.to_json(json)
    if plot is not None:
        report.plot(plot)
    print_report(report)
