"""The folder that an artifact goes to: made beside it, and moved in when it is proved."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hf_shrink.errors import ShrinkError


def check_target(output_dir: str | Path) -> Path:
    """Refuse a folder in use, or one that cannot be written to.

    Args:
        output_dir: What the user gave.

    Returns:
        Its path.

    Raises:
        ShrinkError: If something is in it, or it lies where one cannot write.
    """
    target = Path(output_dir).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ShrinkError(f"`output_dir` must be new or empty, but {target} holds something. Choose another folder.")
    anchor = _anchor(target)
    if not anchor.is_dir() or not os.access(anchor, os.W_OK | os.X_OK):
        raise ShrinkError(f"`output_dir` must lie where one can write, but {anchor} is no such folder. Choose one.")
    return target


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A folder to work in, on the same disk as the target; gone at the end.

    Args:
        target: What `check_target` gave.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(dir=_anchor(target), prefix=f".{target.name}-") as work:
        yield Path(work)


def move(folder: Path, target: Path, last: str) -> None:
    """Move what is in a folder.

    Args:
        folder: From where.
        target: Where to.
        last: The file that says that the rest is there.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        shutil.move(path, target / path.name)


def _anchor(target: Path) -> Path:
    """The nearest folder above that is there: on the same disk, so that moving is renaming."""
    return next(parent for parent in target.absolute().parents if parent.exists())
