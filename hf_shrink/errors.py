"""The errors that hf_shrink raises, and the import of optional libraries."""

import importlib
from types import ModuleType


class ShrinkError(ValueError):
    """Input that is refused, or work that cannot go on; the message names argument, value and next step."""


class MissingExtraError(ShrinkError, ImportError):
    """A library that one of the project's extras brings is not installed."""


def require(module: str, *, extra: str | None) -> ModuleType:
    """Import an optional library.

    Args:
        module: Name to import, such as `onnxruntime.quantization`.
        extra: The extra of this project that installs it, such as `onnx`; None for what comes with the project.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the library is not installed.
        ModuleNotFoundError: If it is installed, and something that it needs is not.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the library is there and broken: its own error says more
        chosen = "" if extra is None else f"[{extra}]"
        raise MissingExtraError(
            f'`{module}` is not installed. Install it with: pip install "hf_shrink{chosen}".'
        ) from error
