"""Which rows are kept: one file a selector, registered with its paper.

A selector is a function `(candidates, count, generator)` with options of its own after a `*`. It returns the `Picks`:
exactly `count` rows, in [1, candidates.size], the most valuable first. All that is random comes from `generator`
(`numpy.random.Generator`), and the same input gives the same rows on any machine and with any number of threads: ties
go to the lower position.

Each registers two facts beside its paper. `reads` is a tuple of the fields of `Candidates` that it needs, such as
`("embeddings",)`. `strata` says whether it is asked for each class by itself (True), under its share of the budget, or
once for all rows (False).
"""

from hf_shrink.registry import Registry

SELECTORS = Registry("method", __name__)

__all__ = ["SELECTORS"]
