"""What a model's answers tell of each row: one number a row, from logits and labels."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_shrink.dataset_distillation.scores import SCORES
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.encoding import IGNORED

LARGEST = 2**24  # logits that are in fp32 at once: a language model's, of a whole batch, would fill the memory
Values = NDArray[np.float32]


def label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the label.

    Args:
        logits: Shape (P, C), fp32.
        labels: Shape (P,).

    Returns:
        Shape (P,), in [0, 1].
    """
    return logits.softmax(-1).gather(-1, labels[:, None])[:, 0]


def logit_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label less the largest of the others.

    Args:
        logits: Shape (P, C), fp32.
        labels: Shape (P,).

    Returns:
        Shape (P,); below 0 where the answer is wrong.
    """
    others = logits.scatter(-1, labels[:, None], float("-inf"))
    return logits.gather(-1, labels[:, None])[:, 0] - others.amax(-1)


def probability_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest probability less the second largest.

    Args:
        logits: Shape (P, C), fp32.
        labels: Unused; part of the signature that all statistics share.

    Returns:
        Shape (P,), in [0, 1].
    """
    first, second = logits.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


def error_norm(logits: Tensor, labels: Tensor) -> Tensor:
    """Length of the error, probabilities less the one-hot label.

    Args:
        logits: Shape (P, C), fp32.
        labels: Shape (P,).

    Returns:
        Shape (P,), in [0, sqrt(2)].
    """
    error = logits.softmax(-1)
    return error.scatter_add(-1, labels[:, None], torch.full_like(error[:, :1], -1)).norm(dim=-1)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Entropy of the answer.

    Args:
        logits: Shape (P, C), fp32.
        labels: Unused; part of the signature that all statistics share.

    Returns:
        Shape (P,), nats.
    """
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest logit is the label's.

    Args:
        logits: Shape (P, C), fp32.
        labels: Shape (P,).

    Returns:
        Shape (P,), 0 or 1.
    """
    return (logits.argmax(-1) == labels).float()


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the label.

    Args:
        logits: Shape (P, C), fp32.
        labels: Shape (P,).

    Returns:
        Shape (P,), nats.
    """
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def row_means(function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """Average what a function says of positions over each row.

    Args:
        function: Of logits (P, C) in fp32 and labels (P,); one value a position.
        logits: Shape (B, C) or (B, T, V).
        labels: Class ids, shape (B,) or (B, T), -100 where there is none; or, for rows with several labels, 0 or 1 for
            each class, shape of the logits: each class then is a position with the answers no and yes.

    Returns:
        Shape (B,), fp32; NaN for a row without labels.

    Raises:
        ShrinkError: If the shapes fit neither, or there is one class.
    """
    if labels.shape == logits.shape:
        logits = torch.stack([torch.zeros_like(logits), logits], dim=-1)  # the softmax of (0, z) is a sigmoid
        labels = torch.where(labels == IGNORED, IGNORED, (labels > 0.5).long())
    if labels.shape != logits.shape[:-1] or logits.shape[-1] < 2:
        raise ShrinkError(
            "`labels` must be class ids, one a row or token, or 0 or 1 for each class of a row, got shape "
            f"{tuple(labels.shape)} beside logits of {tuple(logits.shape)}. Scores need a model with classes."
        )
    flat, ids = logits.flatten(0, -2), labels.flatten()
    step = max(1, LARGEST // flat.shape[-1])
    parts = [
        function(flat[start : start + step].float(), ids[start : start + step].clamp(min=0))
        for start in range(0, len(ids), step)
    ]
    known = (labels != IGNORED).reshape(len(labels), -1)
    values = torch.cat(parts).reshape(known.shape)
    return torch.where(known, values, 0.0).sum(1) / known.sum(1)


STATISTICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        function.__name__: partial(row_means, function)
        for function in (label_probability, logit_margin, probability_margin, error_norm, entropy, correct, loss)
    }
)


def read_by(scores: Iterable[str]) -> tuple[str, ...]:
    """The statistics that scores are made of.

    Args:
        scores: Names in `SCORES`.

    Returns:
        Names in `STATISTICS`, sorted.
    """
    return tuple(sorted({name for score in scores for name in SCORES[score].facts["reads"]}))


def unseen(statistics: Sequence[str], epochs: int, rows: int) -> dict[str, Values]:
    """The dynamics of a run that has seen no row.

    Args:
        statistics: Names in `STATISTICS`.
        epochs: E, at least 1.
        rows: N.

    Returns:
        Statistic to NaN of shape (E, N).
    """
    return {name: np.full((epochs, rows), np.nan, dtype=np.float32) for name in statistics}


def mean_seen(values: Values) -> Values:
    """Average over the epochs that saw a row.

    Args:
        values: Shape (E, N).

    Returns:
        Shape (N,); NaN for a row that none saw.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a column that is NaN throughout
        return np.asarray(np.nanmean(values, axis=0, dtype=np.float64), dtype=np.float32)


def last_seen(values: Values) -> Values:
    """The value of the last epoch that saw a row.

    Args:
        values: Shape (E, N).

    Returns:
        Shape (N,); NaN for a row that none saw.
    """
    return first_seen(values[::-1])


def first_seen(values: Values) -> Values:
    """The value of the first epoch that saw a row.

    Args:
        values: Shape (E, N).

    Returns:
        Shape (N,); NaN for a row that none saw.
    """
    epoch = (~np.isnan(values)).argmax(axis=0)
    return values[epoch, np.arange(values.shape[1])]
