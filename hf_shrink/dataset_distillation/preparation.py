"""What happens to rows before any is chosen: test rows and duplicates go, the rest gets embeddings."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_shrink.dataset_distillation.contamination import find_contaminated, named_sets
from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.duplicates import find_duplicates
from hf_shrink.dataset_distillation.embeddings import check_embeddings
from hf_shrink.dataset_distillation.encoder import encode, usual_encoder
from hf_shrink.dataset_distillation.plain_embeddings import holds_images
from hf_shrink.dataset_distillation.report import Stage
from hf_shrink.inputs.columns import Columns
from hf_shrink.inputs.models import model_name

FITTED, PIXELS = "TF-IDF and SVD", "pixels"


@dataclass(frozen=True)
class Encoding:
    """How embeddings are made, or that they are given.

    Args:
        encoder: As in `encode`.
        embeddings: Shape (N, D), given by the user, or None.
        processing_class: What prepares rows for the encoder.
        batch_size: Rows at once.
        max_length: Tokens to cut a text to.
        folder: Where the vectors are kept, or None.
        wanted: Whether anything reads them.
    """

    encoder: Any = None
    embeddings: Any = None
    processing_class: Any = None
    batch_size: int = 64
    max_length: int | None = None
    folder: Path | None = None
    wanted: bool = True

    def run(self, rows: Dataset, text: Sequence[str], name: str = "embeddings") -> NDArray[np.float32]:
        """Encode rows.

        Args:
            rows: The rows.
            text: Columns that are read; none for tokenised rows.
            name: Of the folder within `folder`.

        Returns:
            Shape (N, D), float32, unit length.
        """
        vectors = encode(
            rows,
            self.encoder,
            text_column=list(text) or None,
            processing_class=self.processing_class,
            batch_size=self.batch_size,
            max_length=self.max_length,
            output_dir=None if self.folder is None else self.folder / name,
        )
        return check_embeddings(vectors, len(rows))

    def title(self, rows: Dataset) -> str:
        """What made the embeddings, in words.

        Args:
            rows: The rows.

        Returns:
            Such as "all-MiniLM-L6-v2".
        """
        if self.embeddings is not None:
            return "the user"
        if self.encoder is not None:
            return model_name(self.encoder)
        if holds_images(rows):
            return PIXELS
        return FITTED if usual_encoder() is None else "all-MiniLM-L6-v2"

    def comparable(self, rows: Dataset) -> bool:
        """Whether vectors of other rows lie in the same space.

        Args:
            rows: The rows.

        Returns:
            False where they are given, or fitted to the rows that they are made of.
        """
        return self.embeddings is None and self.title(rows) != FITTED


@dataclass
class Prepared:
    """Rows that may be chosen.

    Args:
        alive: Shape (N,), their positions among the rows given.
        embeddings: Shape (N, D), or None.
        stages: What was done, in order.
        encode_seconds: What the embeddings took; None where they were given or found in a folder.
    """

    alive: NDArray[np.int64]
    embeddings: NDArray[np.float32] | None = None
    stages: list[Stage] = field(default_factory=list)
    encode_seconds: float | None = None

    def drop(self, mask: NDArray[np.bool_], name: str, **details: Any) -> None:
        """Leave rows out.

        Args:
            mask: Shape (N,), True at each row to leave out.
            name: Of the step.
            **details: What it found.
        """
        before = len(self.alive)
        self.alive = self.alive[~mask]
        self.embeddings = None if self.embeddings is None else self.embeddings[~mask]
        self.stages.append(Stage(name, before, len(self.alive), details))


def prepare(
    rows: Dataset, columns: Columns, encoding: Encoding, *, exclude: Any = None, duplicates: str | None = None
) -> Prepared:
    """Leave out test rows and duplicates, and encode the rest.

    Args:
        rows: The rows given.
        columns: Their text.
        encoding: How to encode them.
        exclude: Test sets, as `find_contaminated` takes them.
        duplicates: Method of `deduplicate`, or None.

    Returns:
        What is left.
    """
    prepared = Prepared(np.arange(len(rows)), stages=[Stage("given", len(rows), len(rows))])
    if encoding.embeddings is not None:
        prepared.embeddings = check_embeddings(encoding.embeddings, len(rows))
    text = [column for column in columns.text if holds_text(rows, column)]
    if exclude is not None and text:
        found = find_contaminated(rows, exclude, text_columns=text)
        prepared.drop(found.dropped, "rows of test sets", **found.counts)
    by_vectors = duplicates is not None and DUPLICATE_METHODS[duplicates].facts["reads"] == "embeddings"
    if duplicates is not None and text and not by_vectors:
        _drop_duplicates(prepared, rows, text, duplicates)
    if encoding.wanted and prepared.embeddings is None:
        _encode(prepared, rows, columns, encoding)
    if exclude is not None and prepared.embeddings is not None and encoding.comparable(rows):
        _drop_alike(prepared, rows, columns, encoding, exclude)
    if duplicates is not None and by_vectors:
        _drop_duplicates(prepared, rows, text, duplicates)
    return prepared


def holds_text(rows: Dataset, column: str) -> bool:
    """Whether a column can be compared word by word.

    Args:
        rows: The rows.
        column: One of their columns.

    Returns:
        True for text and lists of words, False for images and the like.
    """
    return not holds_images(rows.select_columns([column]))


def _drop_duplicates(prepared: Prepared, rows: Dataset, text: Sequence[str], method: str) -> None:
    there = rows.select(prepared.alive)
    reads = DUPLICATE_METHODS[method].facts["reads"]
    vectors = prepared.embeddings if reads == "embeddings" else None
    found = find_duplicates(there, method, text_column=list(text) or None, embeddings=vectors)
    mask = np.ones(len(there), dtype=np.bool_)
    mask[found.kept] = False
    prepared.drop(mask, f"{method} duplicates")


def _encode(prepared: Prepared, rows: Dataset, columns: Columns, encoding: Encoding) -> None:
    known = encoding.folder is not None and (encoding.folder / "embeddings").exists()
    start = time.perf_counter()
    prepared.embeddings = encoding.run(rows.select(prepared.alive), columns.text)
    prepared.encode_seconds = None if known else time.perf_counter() - start


def _drop_alike(prepared: Prepared, rows: Dataset, columns: Columns, encoding: Encoding, exclude: Any) -> None:
    sets = named_sets(exclude).values()
    theirs = [encoding.run(test, columns.text, f"exclude-{number}") for number, test in enumerate(sets)]
    found = find_contaminated(
        rows.select(prepared.alive),
        exclude,
        embeddings=prepared.embeddings,
        exclude_embeddings=np.concatenate(theirs),
    )
    prepared.drop(found.dropped, "rows like those of test sets", semantic=found.counts["semantic"])
