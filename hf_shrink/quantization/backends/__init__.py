"""Quantizers, one file a library.

A quantizer is called with a `Job` and the options that its signature names, and returns what it `Made`. Its entry
holds `libraries`, which are looked for before any work, the `extra` that brings them, how many `stages` it has, the
`format` of its numbers, the `tasks` that it serves, and whether it is `calibrated`, that is, reads rows; with
`rows_optional` it does without where there are none.
"""

from hf_shrink.registry import Registry

QUANTIZERS = Registry("method", __name__)

__all__ = ["QUANTIZERS"]
