"""Arguments that count something."""

from hf_shrink.errors import ShrinkError


def check_counts(**counts: int | None) -> None:
    """Refuse counts of nothing: rows, tokens, threads or passes.

    Args:
        **counts: Argument name to its value; None stands for a default.

    Raises:
        ShrinkError: If one is below 1.
    """
    for argument, count in counts.items():
        if count is not None and not count >= 1:
            raise ShrinkError(f"`{argument}` must be at least 1, got {count}. Leave it out for the default.")
