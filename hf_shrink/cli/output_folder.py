"""The folder that a command writes to."""

from pathlib import Path

from hf_shrink.errors import ShrinkError


def check_new_folder(folder: Path) -> None:
    """Refuse to write among what is there already.

    Args:
        folder: Where a model is to be saved.

    Raises:
        ShrinkError: If it is a file, or holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ShrinkError(f"`output_dir` must be new or empty, but {folder} holds something. Choose another folder.")
