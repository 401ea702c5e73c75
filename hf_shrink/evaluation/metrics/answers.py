"""Metrics on answer texts, normalised as the SQuAD script does it."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from hf_shrink.evaluation.metrics import METRICS

SQUAD = "arXiv:1606.05250"
ANSWERS = ("question_answering",)


@METRICS.add("exact_match", paper=SQUAD, tasks=ANSWERS, higher_is_better=True, percent=True, trials=ANSWERS)
def exact_match(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Share of answers that equal a reference, but for case, punctuation and articles.

    Args:
        predictions: N answers.
        references: For each, one right answer or several.

    Returns:
        Share in [0, 1].
    """
    pairs = zip(predictions, references, strict=True)
    return _mean([max(float(_words(answer) == _words(r)) for r in _all(right)) for answer, right in pairs])


@METRICS.add("squad_f1", paper=SQUAD, tasks=ANSWERS, higher_is_better=True, percent=True, trials=())
def squad_f1(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Mean overlap of words with the nearest reference, as F1.

    Args:
        predictions: N answers.
        references: For each, one right answer or several.

    Returns:
        Share in [0, 1].
    """
    pairs = zip(predictions, references, strict=True)
    return _mean([max(_overlap(_words(answer), _words(r)) for r in _all(right)) for answer, right in pairs])


def _overlap(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)  # an unanswerable question is right only if left unanswered
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference))


def _words(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _all(references: str | Sequence[str]) -> Sequence[str]:
    return [references] if isinstance(references, str) else references or [""]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
