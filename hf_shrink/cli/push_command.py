"""`hf-shrink push`: upload a model folder, or one with a dataset, with its card."""

from pathlib import Path
from typing import Annotated

import typer

from hf_shrink.cli.config_file import ConfigFile


def register(app: typer.Typer) -> None:
    """Add the command.

    Args:
        app: The command line.
    """
    app.command("push")(push)


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with the model, and shrink_report.json where there is one; with --dataset one with rows."
        ),
    ],
    repo_id: Annotated[str, typer.Argument(help="Where to push, as user/name; it is made if it is not there.")],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Who may see a repository made now.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; default: main.")] = None,
    dataset: Annotated[
        bool,
        typer.Option("--dataset", help="The folder holds a dataset, as distill-dataset writes it; its rows go up."),
    ] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request; not with --dataset.")] = False,
    commit_message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    config: ConfigFile = None,
) -> None:
    """Upload weights or rows, report and card in one commit; the token comes from `hf auth login` or HF_TOKEN."""
    from hf_shrink.hub import push_to_hub
    from hf_shrink.hub.dataset_folder import push_dataset_folder

    if dataset and create_pr:
        raise typer.BadParameter("must be left out with --dataset.", param_hint="--create-pr")
    if dataset:
        url = push_dataset_folder(folder, repo_id, private=private, revision=revision, commit_message=commit_message)
        typer.echo(url)
        return
    url = push_to_hub(
        folder, repo_id, private=private, revision=revision, create_pr=create_pr, commit_message=commit_message
    )
    typer.echo(url)
