"""`hf-shrink quickstart`: the whole walk on a real model and real data, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.config_file import ConfigFile


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("quickstart")(quickstart)


def quickstart(
    model: Annotated[str | None, typer.Option(help="Hub id or folder; default: all-MiniLM-L6-v2.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Hub id or folder with a train and a test split; default: Banking77.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder for the models, the report and the picture.")] = Path(
        "quickstart-out"
    ),
    num_hidden_layers: Annotated[int, typer.Option(min=1, help="Layers of the student.")] = 1,
    teacher_epochs: Annotated[float, typer.Option(min=0, help="Epochs of the teacher's fine-tuning.")] = 5,
    student_epochs: Annotated[float, typer.Option(min=0, help="Epochs of the distillation.")] = 6,
    train_rows: Annotated[
        int | None, typer.Option(min=1, help="Use only that many training rows, drawn at random.")
    ] = None,
    test_rows: Annotated[
        int | None, typer.Option(min=1, help="Use only that many test rows, drawn at random.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also train the same student without a teacher, for comparison.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    config: ConfigFile = None,
) -> None:
    """Fine-tune a teacher, distil it into a smaller student, export that to int8, and measure all of them.

    A second run with the same options reuses the stages that are finished.
    """
    from hf_shrink.cli.quickstart_stages import Quickstart, run_quickstart

    run_quickstart(
        Quickstart(
            model=model,
            dataset=dataset,
            output_dir=output_dir,
            num_hidden_layers=num_hidden_layers,
            teacher_epochs=teacher_epochs,
            student_epochs=student_epochs,
            train_rows=train_rows,
            test_rows=test_rows,
            baseline=baseline,
            seed=seed,
        )
    )
