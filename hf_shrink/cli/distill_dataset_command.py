"""`hf-shrink distill-dataset`: a small real subset that trains nearly as well, with its report, pictures and card."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.assignments import read_assignments
from hf_shrink.cli.config_file import ConfigFile
from hf_shrink.cli.row_options import LabelColumn

MEASURE, LABELS = "What is measured, and by what", "What is learned beside the labels"
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", help="Column with the text, or two for pairs; may be repeated; default: found."),
]


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("distill-dataset")(distill_rows)


def distill_rows(
    dataset: Annotated[str, typer.Option(help="Folder, file or Hub id of the rows.")],
    budget: Annotated[
        str,
        typer.Option(
            help="What to keep: a share of the rows (0.1), a number of rows (5000), of each class (per_class=50), or "
            "of tokens (tokens=2000000, never exceeded)."
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="New folder for the rows, the report, its pictures and the card.")
    ] = Path("distilled"),
    split: Annotated[str, typer.Option(help="Split to choose from.")] = "train",
    method: Annotated[
        str,
        typer.Option(
            help="How rows are chosen: auto tries several against a stratified sample, and takes the sample where "
            "none beats it; or random, stratified, kmeans, facility_location, graph_cut, herding, k_center, ccs, d2, "
            "el2n, forgetting, margin, entropy, or rds (near --targets)."
        ),
    ] = "auto",
    method_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the method; may be repeated. Not with auto."),
    ] = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder, file or Hub id of a test set, whose rows are left out, and those like them; may be repeated."
        ),
    ] = None,
    exclude_split: Annotated[str, typer.Option(help="Split of the test sets.")] = "test",
    duplicates: Annotated[
        str,
        typer.Option(
            help="Which duplicates are left out: exact, jaccard (near texts), minhash (near texts among millions), "
            "semantic (near embeddings) or none."
        ),
    ] = "exact",
    label_noise: Annotated[
        str,
        typer.Option(
            help="Whether rows whose label is likely wrong are left out: yes, no, or auto (with --method auto both "
            "are tried; with any other they stay)."
        ),
    ] = "auto",
    targets: Annotated[
        str | None, typer.Option(help="With --method rds: folder, file or Hub id of the rows that matter.")
    ] = None,
    targets_split: Annotated[str, typer.Option(help="Split of these rows.")] = "validation",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of a model for the same classes, whose answers become the column soft_label.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    soft_labels: Annotated[
        bool,
        typer.Option(
            "--soft-labels",
            help="Without a teacher: answers of a linear head that has not seen the row become soft_label.",
            rich_help_panel=LABELS,
        ),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of what makes embeddings; default: all-MiniLM-L6-v2 where it is on this machine, "
            "else words and letters (TF-IDF).",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="With a budget of tokens: folder or Hub id of the model that will be trained, whose tokenizer counts "
            "them.",
            rich_help_panel=MEASURE,
        ),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve/--no-curve",
            help="Measure the score by rows kept, and a method that is named against a stratified sample.",
            rich_help_panel=MEASURE,
        ),
    ] = True,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows that encoder and teacher read at once.", rich_help_panel=MEASURE)
    ] = 64,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens that the encoder cuts a text to; default: its own limit.", rich_help_panel=MEASURE
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="What the card says that the rows were made from; default: --dataset where it is a Hub id."),
    ] = None,
    license: Annotated[
        list[str] | None,
        typer.Option(
            help="The Hub's identifier of the licence, such as cc-by-4.0; may be repeated (that of the rows, that of "
            "the teacher): the most restrictive counts; default: the one that the rows carry."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    config: ConfigFile = None,
) -> None:
    """Choose the rows on which a model trains nearly as well as on all of them, and say what was measured."""
    options = read_assignments(method_option, "--method-option", "fraction=0.1")

    from hf_shrink.cli.distill_dataset_stages import DatasetDistillation, run_dataset_distillation

    run_dataset_distillation(
        DatasetDistillation(
            dataset=dataset,
            budget=budget,
            output_dir=output_dir,
            split=split,
            method=method,
            method_options=options,
            text_column=text_column or None,
            label_column=label_column,
            exclude=exclude or [],
            exclude_split=exclude_split,
            duplicates=duplicates,
            label_noise=label_noise,
            targets=targets,
            targets_split=targets_split,
            teacher=teacher,
            soft_labels=soft_labels,
            encoder=encoder,
            tokenizer=tokenizer,
            curve=curve,
            batch_size=batch_size,
            max_length=max_length,
            source=source,
            license=license or None,
            seed=seed,
        )
    )
