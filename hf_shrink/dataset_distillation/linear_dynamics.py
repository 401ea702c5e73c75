"""The dynamics of a linear head on embeddings: what rows are hard, in seconds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_shrink.dataset_distillation.dynamics import STATISTICS, Values, unseen
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.counts import check_counts

SCALE = 10.0  # length that embeddings are given: from unit length the first epochs of Adam would hardly move an answer
AT_ONCE = 4096  # rows whose logits are in memory


def linear_dynamics(
    embeddings: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> Mapping[str, Values]:
    """Train a linear head on embeddings and note what it answers each row after every epoch.

    One thread works, so that the values are the same for any number that the machine has.

    Args:
        embeddings: Shape (N, D), finite, rows of unit length.
        labels: Class ids from 0, shape (N,); or, for rows with several labels, 0 or 1 for each, shape (N, L).
        epochs: E.
        batch_size: Rows a step.
        learning_rate: Of Adam, which falls to 0 along a line.
        seed: Of the order of the rows.

    Returns:
        Each of `STATISTICS`, shape (E, N).
    """
    check_counts(epochs=epochs, batch_size=batch_size)
    _check(embeddings, labels)
    dynamics = unseen(list(STATISTICS), epochs, len(labels))
    with _one_thread():
        inputs, targets = torch.from_numpy(np.ascontiguousarray(embeddings, np.float32)) * SCALE, _targets(labels)
        heads = _heads(inputs, targets, epochs, batch_size, learning_rate, seed)
        for epoch, (weight, bias) in enumerate(heads):
            for rows in torch.arange(len(inputs)).split(AT_ONCE):
                logits = inputs[rows] @ weight + bias
                for name, statistic in STATISTICS.items():
                    dynamics[name][epoch, rows] = statistic(logits, targets[rows]).numpy()
    return dynamics


def _heads(
    inputs: Tensor, targets: Tensor, epochs: int, batch_size: int, learning_rate: float, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight (D, C) and bias (C,) after each epoch."""
    several = targets.ndim == 2
    classes = targets.shape[1] if several else max(2, int(targets.max()) + 1)
    weight = nn.Parameter(torch.zeros(inputs.shape[1], classes))
    bias = nn.Parameter(torch.zeros(classes))
    optimizer = torch.optim.Adam([weight, bias], lr=learning_rate)
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    criterion = nn.BCEWithLogitsLoss() if several else nn.CrossEntropyLoss()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
            optimizer.zero_grad()
            criterion(inputs[rows] @ weight + bias, targets[rows]).backward()
            optimizer.step()
            schedule.step()
        yield weight.detach(), bias.detach()


def _targets(labels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(labels, np.int64 if labels.ndim == 1 else np.float32))


@contextmanager
def _one_thread() -> Iterator[None]:
    """With several threads a matrix product's sums have another order, and other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(embeddings: NDArray[np.float32], labels: NDArray[Any]) -> None:
    if embeddings.ndim != 2 or not len(embeddings) or len(embeddings) != len(labels):
        raise ShrinkError(
            "`embeddings` must have one row a label, at least 1, got shape "
            f"{embeddings.shape} beside labels of {labels.shape}. Encode the rows that the labels belong to."
        )
    if not np.isfinite(embeddings).all():
        raise ShrinkError("`embeddings` must be finite, got NaN or infinity. Leave these rows out.")
    whole = np.issubdtype(labels.dtype, np.integer) or labels.ndim == 2
    if labels.ndim not in (1, 2) or not whole or labels.min() < 0 or (labels.ndim == 2 and labels.max() > 1):
        raise ShrinkError(
            "`labels` must be class ids from 0, or 0 or 1 for each label, got "
            f"{labels.dtype} of shape {labels.shape}, from {labels.min()} to {labels.max()}. Number the classes."
        )
