"""Which rows are near each other: one file a method, registered with its paper.

A method is a function `(rows, threshold)` with options of its own after a `*`. It returns what has a length, that of
the rows, and finds pairs: `pairs(left, right)` of two lists of positions gives the positions of one of each and their
similarity, at least the threshold. Whether pairs may be missed is for the method to say; that none is below the
threshold is not. `seed` among the options gets the user's.

What it is given as rows, it says in `reads`: "texts", normalised and none twice, since rows of equal text are one to
it; or "embeddings", shape (N, D), float32, unit length.
"""

from hf_shrink.registry import Registry

DUPLICATE_METHODS = Registry("method", __name__)

__all__ = ["DUPLICATE_METHODS"]
