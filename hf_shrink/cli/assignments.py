"""NAME=VALUE: `--set` for any training argument that has no option of its own, and what else is written so."""

from typing import Annotated, Any

import typer
import yaml

from hf_shrink.errors import ShrinkError

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other training argument; may be repeated."),
]


def read_assignments(
    items: list[str] | None, option: str = "--set", example: str = "warmup_steps=100"
) -> dict[str, Any]:
    """Read what was set.

    Args:
        items: Such as "warmup_steps=100"; the value is YAML.
        option: What the user calls it.
        example: What an error shows.

    Returns:
        Values by name, with underscores.

    Raises:
        ShrinkError: If one is no assignment.
    """
    values = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ShrinkError(f"`{option}` must be NAME=VALUE, got {item!r}. Write for instance {option} {example}.")
        values[name.strip().replace("-", "_")] = yaml.safe_load(value)
    return values
