"""EL2N."""

from collections.abc import Mapping

from hf_shrink.dataset_distillation.dynamics import Values, mean_seen
from hf_shrink.dataset_distillation.scores import SCORES
from hf_shrink.inputs.counts import check_counts


@SCORES.add("el2n", paper="arXiv:2107.07075", reads=("error_norm",), hard="high")
def el2n(dynamics: Mapping[str, Values], *, epochs: int = 10) -> Values:
    """Length of the error early in training (Paul et al., 2021).

    The paper averages over ten runs at one early epoch; here the first epochs of one run stand in for them.

    Args:
        dynamics: `error_norm`, shape (E, N).
        epochs: How many of the first epochs count, at least 1; the paper scores after about ten.

    Returns:
        Shape (N,), in [0, sqrt(2)]; NaN for a row that was not seen.
    """
    check_counts(epochs=epochs)
    return mean_seen(dynamics["error_norm"][:epochs])
