"""`--config file.yaml`: values for a command's options, which flags override."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from hf_shrink.errors import ShrinkError


def _read(context: typer.Context, parameter: typer.CallbackParam, path: Path | None) -> Path | None:
    if path is None:
        return None
    values = _mapping(path)
    known = {p.name for p in context.command.params} - {parameter.name}
    for key in values:
        if key.replace("-", "_") not in known:
            close = difflib.get_close_matches(key, [str(name) for name in known], n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The options are {sorted(known)}."
            raise ShrinkError(f"`--config` must hold options of this command, but {path} has {key!r}. {hint}")
    given = {key.replace("-", "_"): _as_given(value) for key, value in values.items()}
    context.default_map = {**given, **(context.default_map or {})}
    return path


def _as_given(value: Any) -> Any:
    """A mapping as it is written on the command line: NAME=VALUE, one after the other."""
    if not isinstance(value, dict):
        return value
    return [f"{name}={yaml.safe_dump(one, default_flow_style=True).split(chr(10))[0]}" for name, one in value.items()]


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ShrinkError(f"`--config` must be a readable YAML file, got {path}: {error}. Check the file.") from error
    if not isinstance(values, dict):
        raise ShrinkError(f"`--config` must hold `option: value` lines, got a {type(values).__name__} in {path}.")
    return values


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file with values for these options; flags override it.", callback=_read, is_eager=True
    ),
]
