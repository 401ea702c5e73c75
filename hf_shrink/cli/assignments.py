"""`--set NAME=VALUE`: any training argument that has no option of its own."""

from typing import Annotated, Any

import typer
import yaml

from hf_shrink.errors import ShrinkError

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other training argument; may be repeated."),
]


def read_assignments(items: list[str] | None) -> dict[str, Any]:
    """Read what was set.

    Args:
        items: Such as "warmup_steps=100"; the value is YAML.

    Returns:
        Values by name, with underscores.

    Raises:
        ShrinkError: If one is no assignment.
    """
    values = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ShrinkError(f"`--set` must be NAME=VALUE, got {item!r}. Write for instance --set warmup_steps=100.")
        values[name.strip().replace("-", "_")] = yaml.safe_load(value)
    return values
