"""`hf-shrink`: the commands, and what an error looks like."""

import logging
import sys

import typer

from hf_shrink.cli import (
    cache_teacher_command,
    compare_command,
    deduplicate_command,
    distill_command,
    distill_dataset_command,
    env_command,
    migrate_command,
    prune_command,
    push_command,
    quantize_command,
    quickstart_command,
    score_command,
)
from hf_shrink.errors import ShrinkError

app = typer.Typer(
    name="hf-shrink",
    help="Make Hugging Face models smaller and keep their quality.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    quickstart_command,
    distill_command,
    cache_teacher_command,
    prune_command,
    migrate_command,
    quantize_command,
    distill_dataset_command,
    deduplicate_command,
    score_command,
    compare_command,
    push_command,
    env_command,
)
for module in COMMANDS:
    module.register(app)
CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree")  # loaded by transformers; they say what is not there


@app.callback()
def _options(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Make Hugging Face models smaller and keep their quality."""


def run() -> None:
    """Run the command line; exit code 0 is done, 1 refused input or failed work, 2 wrong usage."""
    debug = "--debug" in sys.argv[1:]
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app()
    except ShrinkError as error:
        if debug:
            raise
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.secho(f"Failed: {type(error).__name__}: {error}. See more: hf-shrink --debug …", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("Stopped.", err=True)
        sys.exit(130)
