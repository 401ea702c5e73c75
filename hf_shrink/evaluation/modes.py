"""Modules put into evaluation mode, and back into the mode that they came in."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluation_mode(models: Iterable[Any]) -> Iterator[None]:
    """Turn dropout and the like off for a while; module by module, since a frozen part may be in another mode.

    Args:
        models: Modules, or stand-ins without modes.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for m in models if isinstance(m, nn.Module) for module in m.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
