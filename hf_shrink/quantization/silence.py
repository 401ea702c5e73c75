"""Libraries that say what users can do nothing about are kept quiet while they work."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let loggers tell of nothing but errors.

    Args:
        *names: Of the loggers; "root" is the root, which is given back without the handler that a library's first
            message to it would leave there for good.

    Yields:
        Nothing.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    root.addHandler(silent)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        root.removeHandler(silent)
