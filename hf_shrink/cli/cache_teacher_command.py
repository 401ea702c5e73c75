"""`hf-shrink cache-teacher`: run a teacher over a dataset once, for students that train without it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn, MaxLength, TextColumn
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("cache-teacher")(cache)


def cache(
    teacher: Annotated[str, typer.Option(help="Folder or Hub id of the fine-tuned teacher.")],
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the rows to ask it about.")],
    output_dir: Annotated[
        Path, typer.Option(help="New folder, or a cache of the same teacher and settings, which gets what it lacks.")
    ] = Path("teacher-cache"),
    split: Annotated[str, typer.Option(help="Split to ask about.")] = "train",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    max_length: MaxLength = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that the teacher reads at once.")] = 32,
    preset: Annotated[
        str | None, typer.Option(help=f"Also keep what this preset of distill compares: {', '.join(PRESETS)}.")
    ] = None,
    hidden_layers: Annotated[
        list[int] | None,
        typer.Option(help="Layer whose hidden states are kept, from 0, or -1 for the last; may be repeated."),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="Keep one vector a row of these: mean, cls, last or max; default: one a token."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="What the teacher is for; default: found from its head.")] = None,
    config: ConfigFile = None,
) -> None:
    """Run a teacher over a dataset once; `distill --teacher-cache` then trains without it in the loop."""
    given: dict[str, Any] = {"hidden_layers": hidden_layers, "pooling": pooling}
    kept = {**_kept_for(preset), **{name: value for name, value in given.items() if value}}

    from hf_shrink.distillation import cache_teacher
    from hf_shrink.distillation.cache_columns import part_files

    cached = cache_teacher(
        teacher,
        dataset,
        output_dir,
        split=split,
        text_column=text_column,
        label_column=label_column,
        max_length=max_length,
        batch_size=batch_size,
        task=task,
        **kept,
    )
    size = sum(part.stat().st_size for part in part_files(cached.path))
    typer.echo(f"{len(cached):,} rows, {size / len(cached):,.0f} bytes a row, in {cached.path}")


def _kept_for(preset: str | None) -> Mapping[str, Any]:
    """Hidden states that a preset compares."""
    if preset is None:
        return {}
    if preset not in PRESETS:
        raise ShrinkError(f"`preset` must be one of {sorted(PRESETS)}, got {preset!r}. Choose one of these.")
    values = PRESETS[preset]
    if not values.get("hidden_weight"):
        return {}
    if values.get("layer_map") != "last":
        raise ShrinkError(
            f"`preset` must compare last layers to be cached before there is a student, got {preset!r}. Name the "
            "layers with --hidden-layers."
        )
    return {"hidden_layers": [-1], "pooling": values.get("pooling")}
