"""How far a model's answers are from another's, without labels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.compared_rows import LANGUAGE_MODELS

NO_DECISIONS = ("regression", "feature_extraction")
PER_TOKEN = (*LANGUAGE_MODELS, "token_classification")
OUTPUTS = {"question_answering": ("start_logits", "end_logits"), "feature_extraction": ("last_hidden_state",)}


@dataclass(frozen=True)
class Divergence:
    """Sums over answers: one a row, or one a token where every token has its own.

    Args:
        total: Of the divergence from the first model, in nats; in squared units where the task decides nothing.
        decisions: Equal decisions.
        answers: All answers.
    """

    total: float = 0.0
    decisions: int = 0
    answers: int = 0

    def __add__(self, other: "Divergence") -> "Divergence":
        """Sums over both."""
        return Divergence(self.total + other.total, self.decisions + other.decisions, self.answers + other.answers)

    @property
    def mean(self) -> float:
        """Mean divergence of an answer."""
        return self.total / max(self.answers, 1)

    @property
    def agreement(self) -> float:
        """Share of equal decisions."""
        return self.decisions / max(self.answers, 1)


def answers_of(model: Any, batch: Mapping[str, Tensor], task: str) -> tuple[Tensor, ...]:
    """A model's answers to a batch.

    Args:
        model: A transformers model or a stand-in that is called alike.
        batch: Inputs by name, without labels.
        task: Name in `TASKS`.

    Returns:
        The task's outputs, fp32 on the CPU: (B, C), (B, T, C) or, of an answer's ends, (B, T) each.
    """
    if isinstance(model, nn.Module):  # some libraries put a model on the GPU as they load it
        device = next(model.parameters()).device
        batch = {name: values.to(device) for name, values in batch.items()}
    with torch.no_grad():
        outputs = model(**batch)
    return tuple(outputs[name].float().cpu() for name in OUTPUTS.get(task, ("logits",)))


def diverge(
    expected: tuple[Tensor, ...], found: tuple[Tensor, ...], batch: Mapping[str, Tensor], task: str
) -> Divergence:
    """Hold answers to those of the model that they should be like.

    Args:
        expected: Its answers, as from `answers_of`.
        found: The others, of the same shapes.
        batch: The inputs; tokens of padding do not count.
        task: Name in `TASKS`.

    Returns:
        Kullback-Leibler divergence of the classes, or of the tokens; summed over labels where several may hold, and
        over both ends of an answer; the mean squared difference where the task decides nothing. Answers that are not
        numbers agree with nothing, and their divergence is not a number either.

    Raises:
        ShrinkError: If the expected answers are not numbers.
    """
    if any(output.isnan().any() for output in expected):
        raise ShrinkError("`model` must give numbers, but gave NaN before anything was quantized. Load it in fp32.")
    real = _real(expected[0], batch, task)
    if any(output.isnan().any() for output in found):
        return Divergence(math.nan, 0, int(real.sum()))
    if task == "question_answering":
        expected, found = (tuple(end.masked_fill(~real, -1e9) for end in ends) for ends in (expected, found))
        nats = sum(_kl(e, f) for e, f in zip(expected, found, strict=True))
        equal = torch.stack([e.argmax(-1) == f.argmax(-1) for e, f in zip(expected, found, strict=True)]).all(0)
        return Divergence(float(nats.sum()), int(equal.sum()), len(equal))  # type: ignore[union-attr]
    first, other = expected[0][real], found[0][real]  # (answers, C)
    if task in NO_DECISIONS:
        return Divergence(float((first - other).square().mean(-1).sum()), 0, len(first))
    if task == "multi_label_classification":
        equal = ((first > 0) == (other > 0)).all(-1)
        return Divergence(float(_binary_kl(first, other).sum()), int(equal.sum()), len(first))
    equal = first.argmax(-1) == other.argmax(-1)
    return Divergence(float(_kl(first, other).sum()), int(equal.sum()), len(first))


def _real(output: Tensor, batch: Mapping[str, Tensor], task: str) -> Tensor:
    """Which answers count, shape (B,) or (B, T)."""
    by_token = task in PER_TOKEN or task == "question_answering" or output.ndim == 3
    if by_token and "attention_mask" in batch:
        return batch["attention_mask"].bool()
    return torch.ones(output.shape[:2] if by_token else output.shape[:1], dtype=torch.bool)


def _kl(expected: Tensor, found: Tensor) -> Tensor:
    return F.kl_div(found.log_softmax(-1), expected.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def _binary_kl(expected: Tensor, found: Tensor) -> Tensor:
    share = expected.sigmoid()
    yes = F.logsigmoid(expected) - F.logsigmoid(found)
    no = F.logsigmoid(-expected) - F.logsigmoid(-found)
    return (share * yes + (1 - share) * no).sum(-1)
