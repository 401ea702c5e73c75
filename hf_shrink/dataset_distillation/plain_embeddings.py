"""Vectors without a model: of texts by their words and letters, of images by their pixels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Image
from numpy.typing import NDArray

from hf_shrink.errors import require

WIDTH = 256  # columns of the reduced table
FITTED = 20_000  # rows that words are counted and directions found in; the others are only read
NGRAMS = 50_000  # columns of each of the two tables before they are reduced
SIDE = 32  # pixels
# What every row has in common. A row whose n-grams stand in no other row has next to nothing in the found directions:
# without this, rounding errors would be scaled up to its vector.
SHARED = 1e-3


def embed_texts(texts: list[str], seed: int) -> NDArray[np.float32]:
    """Weigh words and letter n-grams by their rarity (TF-IDF), and reduce them (truncated SVD).

    Args:
        texts: N texts.
        seed: Draws the rows that are fitted to, where there are many, and starts the SVD.

    Returns:
        Shape (N, D), D at most `WIDTH` + 1, not scaled.
    """
    text = require("sklearn.feature_extraction.text", extra=None)
    pipeline = require("sklearn.pipeline", extra=None)
    settings: dict[str, Any] = {"max_features": NGRAMS, "sublinear_tf": True, "dtype": np.float32}
    table = pipeline.make_union(
        # Any run of signs that is no space: one-letter words and emoji are words too.
        text.TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", **settings),
        text.TfidfVectorizer(ngram_range=(2, 4), analyzer="char_wb", **settings),
    )
    fitted = _sample(len(texts), seed)
    known = table.fit_transform([texts[i] for i in fitted])
    # One thread: sums of several differ in their last bits from run to run.
    with require("threadpoolctl", extra=None).threadpool_limits(1):
        reduced = _reduce(table, known, texts, fitted, seed)
    return np.hstack([reduced, np.full((len(texts), 1), SHARED, dtype=np.float32)])


def embed_pixels(rows: Dataset, column: str, batch_size: int) -> NDArray[np.float32]:
    """Shrink each picture to `SIDE` x `SIDE` pixels, and take these.

    Args:
        rows: The rows.
        column: Of images.
        batch_size: Images decoded at a time.

    Returns:
        Shape (N, 3 * SIDE * SIDE), in [-1, 1]; never zero, since no pixel is halfway between black and white.
    """
    found = np.empty((len(rows), 3 * SIDE * SIDE), dtype=np.float32)
    for start in range(0, len(rows), batch_size):
        for row, picture in enumerate(rows[start : start + batch_size][column], start):
            small = picture.convert("RGB").resize((SIDE, SIDE), 2)  # bilinear; averages over the area when it shrinks
            found[row] = np.asarray(small, dtype=np.float32).reshape(-1) / 127.5 - 1
    return found


def joined_texts(rows: Dataset) -> list[str]:
    """One text a row: of pairs both, of lists the words.

    Args:
        rows: Columns of texts or of lists of words.

    Returns:
        N texts.
    """
    batch: Mapping[str, list[Any]] = rows[:]
    sides = [[" ".join(p) if isinstance(p, list) else p for p in column] for column in batch.values()]
    return [" ".join(parts) for parts in zip(*sides, strict=True)]


def holds_images(rows: Dataset) -> bool:
    """Whether the first column is one of images."""
    return isinstance(next(iter(rows.features.values())), Image)


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    if count <= FITTED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, FITTED, replace=False))


def _reduce(table: Any, known: Any, texts: list[str], fitted: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    width = min(WIDTH, known.shape[0] - 1, known.shape[1] - 1)
    if width < 1:  # one row, or one n-gram: nothing to reduce
        return known.toarray()
    svd = require("sklearn.decomposition", extra=None).TruncatedSVD(width, random_state=seed)
    with np.errstate(invalid="ignore"):  # of equal rows there is no share of the variance to tell
        reduced = svd.fit_transform(known)
    if len(fitted) == len(texts):
        return reduced.astype(np.float32)
    blocks = [svd.transform(table.transform(texts[i : i + FITTED])) for i in range(0, len(texts), FITTED)]
    return np.concatenate(blocks).astype(np.float32)
