"""`hf-shrink migrate`: convert a checkpoint whose heads transformers 4 pruned."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.output_folder import check_new_folder


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("migrate")(migrate)


def migrate(
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub id of a checkpoint with `pruned_heads`.")],
    output_dir: Annotated[Path, typer.Option(help="New or empty folder for the model that every transformers loads.")],
    layout: Annotated[
        str,
        typer.Option(
            help="pad puts the pruned heads back as zeros, which compute the same; remote keeps them out, and needs "
            "trust_remote_code=True to load; auto is pad where heads are missing."
        ),
    ] = "auto",
    config: ConfigFile = None,
) -> None:
    """Convert a BERT, RoBERTa, DistilBERT, ViT or GPT-2 whose heads transformers 4 pruned; 5 cannot load it."""
    check_new_folder(output_dir)

    from hf_shrink.pruning.pruned_heads import migrate_pruned_heads

    saved = migrate_pruned_heads(checkpoint, output_dir, layout)  # type: ignore[arg-type]
    typer.echo(f"{saved.path}: layout {saved.layout}, {saved.size_bytes:,} bytes")
