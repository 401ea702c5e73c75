"""What a teacher's cache was made with: enough to tell whether more rows, or a student, fit to it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_shrink.errors import ShrinkError

FILE = "teacher_cache.json"
FORMAT = 1
# The same weights may lie in two places, and a version of transformers may add arguments that no row fills.
UNCOMPARED = ("teacher", "commit", "parameters")


@dataclass(frozen=True)
class CacheSettings:
    """What stands in `teacher_cache.json`.

    Args:
        teacher: What cards call the teacher.
        commit: Of the Hub, where the teacher was loaded from it.
        weights: Hash of the teacher's weights.
        task: Name in `TASKS`.
        pooling: How hidden states became one vector a row; None if those of all tokens are kept.
        embedding_pooling: How embeddings were made of the tokens; None for other tasks.
        hidden_layers: Layers whose hidden states are kept, counted from 0.
        parameters: Arguments of the teacher's `forward`.
        inputs: Those of them that the rows held.
        tokenizer: Hash of the tokenizer's vocabulary; None without one.
        max_length: Tokens that raw rows were cut to; None is the tokenizer's own limit.
        top_k: Entries of the softmax that are kept of each token; None keeps all scores.
        format_version: Of the files.
    """

    teacher: str
    commit: str | None
    weights: str
    task: str
    pooling: str | None
    embedding_pooling: str | None
    hidden_layers: tuple[int, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    tokenizer: str | None
    max_length: int | None
    top_k: int | None = None
    format_version: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "CacheSettings":
        """Read a cache's settings.

        Args:
            folder: The cache.

        Returns:
            Its settings.

        Raises:
            ShrinkError: If the folder is no cache, or one of a later version.
        """
        file = folder / FILE
        if not file.is_file():
            raise ShrinkError(
                f"`path_or_repo` must hold a teacher's cache, but {folder} has no {FILE}. Make one with "
                "cache_teacher()."
            )
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values.get("format_version") != FORMAT:
            raise ShrinkError(
                f"`path_or_repo` must hold a cache of format {FORMAT}, got {values.get('format_version')} in {folder}."
                " Update hf_shrink, or cache the teacher anew."
            )
        lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    def write(self, folder: Path) -> None:
        """Write them in one step.

        Args:
            folder: The cache.
        """
        unfinished = folder / f"{FILE}.unfinished"
        unfinished.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / FILE)

    def check_same(self, other: "CacheSettings", folder: Path) -> None:
        """Refuse to add rows to a cache of something else.

        Args:
            other: What is to be added.
            folder: The cache.

        Raises:
            ShrinkError: If they differ in what a row's key or answer depends on.
        """
        own, theirs = asdict(self), asdict(other)
        if different := [name for name in own if name not in UNCOMPARED and own[name] != theirs[name]]:
            pairs = [f"{name} {own[name]!r} there, {theirs[name]!r} here" for name in different]
            raise ShrinkError(
                f"`output_dir` must be a new folder or a cache of the same teacher and settings, but {folder} was "
                f"made with others ({self.teacher}): {'; '.join(pairs)[:600]}. Choose another folder."
            )
