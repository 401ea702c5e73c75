"""Quantizers, one file a library.

A quantizer is called as `quantizer(model, task, folder, step)`: with the model as `to_float` gives it, a name in
`TASKS`, the folder that its weights go to (what it leaves in the folder's parent is thrown away), and a function to
call with the name of each stage as it begins. It returns what the record shall say of it, as JSON values. Its entry
holds `libraries`, which are looked for before any work, the `extra` that brings them, and how many `stages` it has.
"""

from hf_shrink.registry import Registry

QUANTIZERS = Registry("method", __name__)

__all__ = ["QUANTIZERS"]
