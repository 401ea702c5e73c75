"""`hf-shrink score`: train a model on rows, and note how hard each of them is to learn."""

import re
from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn

USUAL = ("aum", "el2n", "forgetting")


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("score")(score)


def score(
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the rows.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of the model to train; it may be without a head.")],
    scores: Annotated[
        list[str] | None,
        typer.Option(help=f"Score to compute; may be repeated; default: {', '.join(USUAL)}."),
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="New folder for the rows with their scores.")] = Path("scored"),
    split: Annotated[str, typer.Option(help="Split to score.")] = "train",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_length: MaxLength = None,
    num_train_epochs: Annotated[int, typer.Option(min=1, help="How often the model sees each row.")] = 5,
    learning_rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a training step.")] = 32,
    task: Annotated[str | None, typer.Option(help="What it is for; default: found from model and rows.")] = None,
    seed: Annotated[int, typer.Option(help="Of a new head, the order of the rows, and dropout.")] = 0,
    config: ConfigFile = None,
) -> None:
    """Train a model on rows, and write them again with a column score_<name> for each score."""
    check_new_folder(output_dir)
    names = scores or list(USUAL)

    from hf_shrink.cli.score_table import print_scores
    from hf_shrink.dataset_distillation import score_dataset

    scored = score_dataset(
        dataset,
        names,
        model,
        split=split,
        task=task,
        text_column=text_column,
        label_column=label_column,
        max_length=max_length,
        num_train_epochs=num_train_epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    name = re.split(r"[^\w.]", split)[0]  # of a slice such as train[:100] too
    path = output_dir / f"{name}.parquet"
    scored.to_parquet(path)
    print_scores(scored, names)
    typer.echo(f"{len(scored):,} rows in {path}")
