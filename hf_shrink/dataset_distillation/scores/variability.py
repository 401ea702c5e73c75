"""Variability of dataset cartography."""

import warnings
from collections.abc import Mapping

import numpy as np

from hf_shrink.dataset_distillation.dynamics import Values
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("variability", paper="arXiv:2009.10795", reads=("label_probability",), hard="high")
def variability(dynamics: Mapping[str, Values]) -> Values:
    """Standard deviation over the epochs of the label's probability (Swayamdipta et al., 2020).

    High marks rows on which the model changes its mind. Rows that are never learned, mislabelled ones among them, vary
    as little as easy ones do.

    Args:
        dynamics: `label_probability`, shape (E, N).

    Returns:
        Shape (N,), in [0, 0.5]; NaN for a row that was not seen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column that is NaN throughout
        return np.nanstd(dynamics["label_probability"], axis=0, dtype=np.float64).astype(np.float32)
