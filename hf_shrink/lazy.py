"""Lazy exports (PEP 562): a public name loads its module, and with it torch or transformers, only when it is used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, exports: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make a package's `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: `__name__` of the package.
        exports: Public name to the dotted module that defines it.

    Returns:
        The three objects to bind in the package.
    """
    names = sorted(exports)

    def load(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(exports[name]), name)

    return load, lambda: names, names
