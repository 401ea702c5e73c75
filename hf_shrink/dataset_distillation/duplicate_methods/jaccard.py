"""Texts whose shingles overlap, all pairs of them."""

from collections.abc import Sequence

from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.near_texts import NearTexts
from hf_shrink.dataset_distillation.shingles import SIZE, Unit, check_shingles, shingle_sets


@DUPLICATE_METHODS.add("jaccard", paper="https://doi.org/10.1145/1367497.1367516", reads="texts")
def jaccard(
    texts: Sequence[str], threshold: float, *, shingles: Unit = "characters", shingle_size: int = SIZE
) -> NearTexts:
    """Texts that share their shingles, found by the rarest of them; no pair is missed (PPJoin, Xiao et al., 2008).

    Fast at high thresholds and needs no library, but holds the shingles of all texts: some 12 bytes a character. For
    long texts, millions of them or a threshold below 0.7 take `minhash`.

    Args:
        texts: None twice.
        threshold: Least Jaccard similarity of two sets of shingles, in (0, 1].
        shingles: What a shingle is a run of: "characters" or "words".
        shingle_size: How many of them.

    Returns:
        What finds the pairs.
    """
    check_shingles(shingles, shingle_size)
    return NearTexts(shingle_sets(texts, shingles, shingle_size), threshold)
