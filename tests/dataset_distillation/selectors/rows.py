"""Rows that the tests of selectors share."""

import numpy as np


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clumps(size, width=12, count=4, spread=0.4, seed=0):
    """Rows of unit length around a few centres, in turn."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((count, width))
    return unit(centres[np.arange(size) % count] + spread * generator.standard_normal((size, width)))
