"""Perplexity of a text."""

from collections.abc import Mapping

import numpy as np

from hf_shrink.dataset_distillation.dynamics import Values, first_seen
from hf_shrink.dataset_distillation.scores import SCORES


@SCORES.add("perplexity", paper="arXiv:2309.04564", reads=("loss",), hard="high")
def perplexity(dynamics: Mapping[str, Values]) -> Values:
    """Perplexity of a text before the model has learned it (as in data pruning, Marion et al., 2023).

    It is read in the first epoch, where each row meets a model that has not been trained on it.

    Args:
        dynamics: `loss`, mean nats a labelled token, shape (E, N).

    Returns:
        Shape (N,), at least 1; NaN for a row that was not seen.
    """
    return np.exp(first_seen(dynamics["loss"]))
