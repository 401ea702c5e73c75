"""MinHash with locality-sensitive hashing, by rensa."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.near_texts import NearTexts
from hf_shrink.dataset_distillation.shingles import SIZE, Unit, check_shingles, hash_shingles, shingle_sets
from hf_shrink.errors import ShrinkError, require

BLOCK = 2**23  # characters whose shingles are held at once
FOUND = 0.999  # chance to find a pair of just the threshold's similarity


@DUPLICATE_METHODS.add("minhash", paper="https://doi.org/10.1109/SEQUEN.1997.666900", reads="texts", extra="scale")
def minhash(
    texts: Sequence[str],
    threshold: float,
    *,
    shingles: Unit = "characters",
    shingle_size: int = SIZE,
    permutations: int = 128,
    seed: int = 0,
) -> NearTexts:
    """Texts of which a band of minima is another's too, compared by all their shingles (MinHash, Broder, 1997).

    The bands are as wide as they can be while a pair of just the threshold's similarity is found in 999 cases of 1000.
    rensa says which texts share one with any other. These alone, few as a rule, are compared in full, so that rows
    which are not alike are not taken for twins.

    Args:
        texts: None twice.
        threshold: Least Jaccard similarity of two sets of shingles, in (0, 1].
        shingles: What a shingle is a run of: "characters" or "words".
        shingle_size: How many of them.
        permutations: Minima a text, each 4 bytes.
        seed: Of the permutations.

    Returns:
        What finds the pairs.

    Raises:
        ShrinkError: If there are too few permutations for so low a threshold.
    """
    check_shingles(shingles, shingle_size)
    width = _band_width(threshold, permutations)
    if width is None:
        raise ShrinkError(
            f"`permutations` must be more than {permutations} to find pairs of similarity {threshold}. Take 512, a "
            'higher threshold, or method="jaccard".'
        )
    signatures = [_sign(part, shingles, shingle_size, permutations, seed) for part in _parts(texts)]
    flagged = np.flatnonzero(_with_partner(signatures, permutations // width, permutations, threshold)).tolist()
    few = shingle_sets([texts[row] for row in flagged], shingles, shingle_size)
    starts = np.zeros(len(texts) + 1, np.int64)
    starts[np.array(flagged, np.int64) + 1] = np.diff(few.indptr)
    sets = csr_matrix((few.data, few.indices, np.cumsum(starts)), shape=(len(texts), few.shape[1]))
    return NearTexts(sets, threshold)


def _band_width(threshold: float, permutations: int) -> int | None:
    """The widest band, in minima, under which pairs are still found; of those that divide the signature."""
    widths = [w for w in range(1, permutations + 1) if permutations % w == 0]
    fit = [w for w in widths if 1 - (1 - threshold**w) ** (permutations // w) >= FOUND]
    return max(fit, default=None)


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    bounds = np.flatnonzero(np.diff(np.cumsum(lengths) // BLOCK, prepend=-1, append=-1)).tolist()
    return [texts[start:end] for start, end in itertools.pairwise(bounds)]


def _sign(texts: Sequence[str], unit: Unit, size: int, permutations: int, seed: int) -> Any:
    hashes, starts = hash_shingles(texts, unit, size)
    return require("rensa", extra="scale").RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, starts.astype(np.uint64), num_perm=permutations, seed=seed
    )


def _with_partner(signatures: list[Any], bands: int, permutations: int, threshold: float) -> NDArray[np.bool_]:
    """Which texts share a band with another."""
    index = require("rensa", extra="scale").RMinHashLSH(threshold=threshold, num_perm=permutations, num_bands=bands)
    if len(signatures) == 1:
        return np.asarray(index.query_duplicate_flags_matrix_one_shot(signatures[0]), dtype=bool)
    start = 0
    for part in signatures:
        index.insert_matrix(part, start)
        start += part.len()
    flags = [np.asarray(index.query_duplicate_flags_matrix(part), dtype=bool) for part in signatures]
    return np.concatenate([*flags, np.zeros(0, dtype=bool)])
