"""`hf-shrink deduplicate`: rows that say again what another row says, left out and listed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hf_shrink.cli.assignments import read_assignments
from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.cli.row_options import LabelColumn

REPORT = "duplicates.json"
SHOWN = 3  # pairs
WIDTH = 80  # characters of a text
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column", help="Column with the text, or several that are compared as a whole; default: found."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Option of the method, as shingle_size=9; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("deduplicate")(deduplicate)


def deduplicate(
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the rows.")],
    output_dir: Annotated[Path, typer.Option(help="New folder for the rows that stay and the report.")] = Path(
        "deduplicated"
    ),
    split: Annotated[str | None, typer.Option(help="Split to read, where there are several.")] = None,
    method: Annotated[
        str, typer.Option(help="exact, jaccard (near texts), minhash (near texts among millions) or semantic.")
    ] = "jaccard",
    threshold: Annotated[float, typer.Option(help="Least similarity of two duplicates, above 0, up to 1.")] = 0.9,
    text_column: TextColumns = None,
    label_column: LabelColumn = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of what makes embeddings for semantic; default: all-MiniLM-L6-v2."),
    ] = None,
    keep: Annotated[str, typer.Option(help="Who stays: first, or the most central of a neighbourhood.")] = "first",
    seed: Annotated[int, typer.Option(help="Of what is random in a method.")] = 0,
    set_: Options = None,
    config: ConfigFile = None,
) -> None:
    """Leave out rows that say again what another row says, and list each beside the row that stands for it."""
    check_new_folder(output_dir)
    chosen = read_assignments(set_, example="shingle_size=9")

    from hf_shrink.dataset_distillation.duplicates import drop_duplicates, find_duplicates
    from hf_shrink.inputs import load_rows

    rows = load_rows(dataset, split)
    found = find_duplicates(
        rows,
        method,
        threshold,
        text_column=text_column or None,
        label_column=label_column,
        encoder=encoder,
        keep=keep,  # type: ignore[arg-type]  # what it may be is checked there
        seed=seed,
        **chosen,
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    file = output_dir / f"{str(rows.split or 'train').split('[')[0]}.parquet"
    drop_duplicates(rows, found).to_parquet(file)
    found.to_json(output_dir / REPORT)
    _tell(found, file)


def _tell(found: Any, file: Path) -> None:
    total = len(found.kept) + len(found.removed)
    typer.echo(f"{total:,} rows, {len(found.removed):,} left out as duplicates, {len(found.kept):,} in {file}")
    for example in found.examples[:SHOWN]:
        typer.echo(f"  {example.similarity:.3f}  {_shown(example.removed, example.removed_text)}")
        typer.echo(f"    like  {_shown(example.kept, example.kept_text)}")


def _shown(row: int, text: str | None) -> str:
    if text is None:
        return f"row {row}"
    return f"row {row}: {text[:WIDTH]}{'…' if len(text) > WIDTH else ''}"
