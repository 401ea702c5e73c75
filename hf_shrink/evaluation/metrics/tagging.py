"""Metrics on tagged spans."""

from collections.abc import Sequence
from functools import lru_cache

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.metrics import METRICS

OPENING = frozenset("BSU")  # begin, and the one-token spans of IOBES and BILOU
CLOSING = frozenset("ESUL")
INSIDE = frozenset("IEL")


@METRICS.add(
    "seqeval_f1",
    paper="https://github.com/chakki-works/seqeval",
    tasks=("token_classification",),
    higher_is_better=True,
    percent=True,
    trials=(),
)
def seqeval_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """F1 of whole spans, as conlleval and seqeval's default mode count them.

    Args:
        predictions: N rows of tags such as "B-PER", "I-PER" and "O"; IOB1, IOB2, IOBES and BILOU are read.
        references: N rows of the same lengths.

    Returns:
        Share in [0, 1]; 0 without a right span.
    """
    right = found = wanted = 0
    for predicted, reference in zip(predictions, references, strict=True):
        predicted_spans, reference_spans = spans(tuple(predicted)), spans(tuple(reference))
        right += len(predicted_spans & reference_spans)
        found += len(predicted_spans)
        wanted += len(reference_spans)
    return 2 * right / (found + wanted) if right else 0.0


@lru_cache(maxsize=100_000)  # the bootstrap reads the same rows a thousand times
def spans(tags: tuple[str, ...]) -> frozenset[tuple[str, int, int]]:
    """The spans that a row of tags marks.

    Args:
        tags: One row of T tags.

    Returns:
        (kind, first token, token after the last) of each span.
    """
    found = set()
    kind, start, last = "", -1, "O"
    for i, tag in enumerate([*tags, "O"]):
        prefix, tag_kind = _parse(tag)
        goes_on = prefix in INSIDE and last != "O" and last not in CLOSING and tag_kind == kind
        if last != "O" and not goes_on:
            found.add((kind, start, i))
        if prefix != "O" and not goes_on:
            kind, start = tag_kind, i
        last = prefix
    return frozenset(found)


def _parse(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")  # kinds may hold hyphens themselves: "B-creative-work"
    if tag != "O" and (not kind or prefix not in OPENING | INSIDE):
        raise ShrinkError(
            f"`metric` 'seqeval_f1' must get tags such as 'B-PER', 'I-PER' and 'O', got {tag!r}. Name the labels so "
            "in the model's `id2label`, or choose 'accuracy' or 'f1_macro' for tags without spans."
        )
    return prefix, kind
