"""What becomes of a batch of raw rows, task by task; every function maps column names to lists of N values."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER

from hf_shrink.errors import ShrinkError

IGNORED = -100  # the label of a row or token that losses and metrics leave out, as everywhere in transformers
SOFT_LABEL = "soft_label"  # column of a teacher's scores, one a class, in the order of the classes
Batch = Mapping[str, list[Any]]


def encode_text(
    batch: Batch,
    *,
    tokenizer: PreTrainedTokenizerBase,
    text: Sequence[str],
    max_length: int | None = None,
    **options: Any,
) -> BatchEncoding:
    """Tokenize texts, pairs of texts, or lists of words.

    Args:
        batch: The rows.
        tokenizer: The model's own.
        text: One column, or two for pairs.
        max_length: Tokens a row is cut to; None takes the tokenizer's limit, where it has one.
        **options: Handed to the tokenizer.

    Returns:
        The tokenizer's output, not padded.

    Raises:
        ShrinkError: If a text is missing.
    """
    columns = [batch[column] for column in text]
    for name, column in zip(text, columns, strict=True):
        if None in column:
            raise ShrinkError(
                f"`text_column` must be filled in every row, but {name!r} has an empty one. Drop such rows."
            )
    limit = tokenizer.model_max_length if max_length is None else max_length
    cut = {"truncation": True, "max_length": limit} if limit < LARGE_INTEGER else {"truncation": False}
    words = bool(columns[0]) and isinstance(columns[0][0], list)
    return tokenizer(*columns, **{"is_split_into_words": words, **cut, **options})


def encode_causal(batch: Batch, *, label: str | None, **settings: Any) -> BatchEncoding:
    """Tokenize texts whose every token is a label; the model shifts them by one.

    Args:
        batch: The rows.
        label: Unused; part of the signature that all encoders with labels share.
        **settings: As in `encode_text`.

    Returns:
        The tokenizer's output and "labels".
    """
    encoded = encode_text(batch, **settings)
    encoded["labels"] = [list(ids) for ids in encoded["input_ids"]]
    return encoded


def encode_summary(batch: Batch, *, label: str, **settings: Any) -> BatchEncoding:
    """Tokenize texts and, as labels, the texts that are to come out.

    Args:
        batch: The rows.
        label: Column of the target text.
        **settings: As in `encode_text`.

    Returns:
        The tokenizer's output and "labels".
    """
    return encode_text(batch, text_target=batch[label], **settings)


def encode_words(batch: Batch, *, label: str, **settings: Any) -> BatchEncoding:
    """Tokenize lists of words; the first token of each word is labelled and the others ignored: metrics count words.

    Args:
        batch: The rows.
        label: Column of lists with one class id a word.
        **settings: As in `encode_text`.

    Returns:
        The tokenizer's output and "labels".

    Raises:
        ShrinkError: If the tokenizer is a slow one, or a row has more or fewer labels than words.
    """
    for words, tags in zip(batch[settings["text"][0]], batch[label], strict=True):
        if not isinstance(words, list) or len(words) != len(tags):
            raise ShrinkError(
                f"`label_column` must hold one label a word, got {len(tags)} for {words!r:.80}. Mend this row."
            )
    encoded = _with_positions(batch, **settings)
    encoded["labels"] = [_first_tokens(encoded.word_ids(i), tags) for i, tags in enumerate(batch[label])]
    return encoded


def encode_answers(batch: Batch, *, label: str, **settings: Any) -> BatchEncoding:
    """Tokenize question and context, and find the first and last token of the first answer.

    Args:
        batch: The rows.
        label: Column of answers as in SQuAD: "text" and "answer_start" (characters), lists.
        **settings: As in `encode_text`; the context alone is cut.

    Returns:
        The tokenizer's output with "start_positions" and "end_positions", 0 where the answer is absent or was cut off.
    """
    encoded = _with_positions(batch, truncation="only_second", return_offsets_mapping=True, **settings)
    offsets = encoded.pop("offset_mapping")
    spans = [_answer_tokens(encoded.sequence_ids(i), offsets[i], answer) for i, answer in enumerate(batch[label])]
    encoded["start_positions"], encoded["end_positions"] = [list(side) for side in zip(*spans, strict=True)]
    return encoded


# The tasks whose labels are made with the tokens; the others keep their label column.
LABEL_ENCODERS: Mapping[str, Callable[..., BatchEncoding]] = MappingProxyType(
    {
        "causal_lm": encode_causal,
        "seq2seq_lm": encode_summary,
        "token_classification": encode_words,
        "question_answering": encode_answers,
    }
)


def _with_positions(batch: Batch, *, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> BatchEncoding:
    if not tokenizer.is_fast:
        raise ShrinkError(
            f"`processing_class` must be a fast tokenizer to place labels on tokens, got {type(tokenizer).__name__}. "
            "Load it with AutoTokenizer.from_pretrained(…, use_fast=True)."
        )
    return encode_text(batch, tokenizer=tokenizer, **settings)


def _first_tokens(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    before = [None, *words[:-1]]
    return [IGNORED if w is None or w == b else tags[w] for w, b in zip(words, before, strict=True)]


def _answer_tokens(
    sequences: Sequence[int | None], offsets: Sequence[tuple[int, int]], answer: Mapping[str, Sequence[Any]]
) -> tuple[int, int]:
    if not answer["text"]:
        return 0, 0
    start = answer["answer_start"][0]
    end = start + len(answer["text"][0])
    context = [i for i, sequence in enumerate(sequences) if sequence == 1]
    inside = [i for i in context if offsets[i][0] < end and offsets[i][1] > start]
    if not inside or offsets[context[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]
