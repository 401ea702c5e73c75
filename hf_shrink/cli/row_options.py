"""Options of every command that reads rows."""

from typing import Annotated

import typer

TextColumn = Annotated[str | None, typer.Option(help="Column with the text; default: found by type and name.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column with the label; default: found by type and name.")]
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens to cut a row to; default: the tokenizer's own limit."),
]
