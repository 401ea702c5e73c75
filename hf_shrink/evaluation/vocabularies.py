"""Language models that read with different tokenizers, made comparable."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import ProcessorMixin

from hf_shrink.evaluation.compared_rows import LANGUAGE_MODELS, count_tokens
from hf_shrink.evaluation.decoding import Predictions

NO_TOKEN = -1


def in_the_words_of_the_first(
    predictions: Sequence[Predictions], rows: Sequence[Dataset], readers: Sequence[Any], task: str
) -> list[Predictions]:
    """Say what language models predict in tokens of the first model.

    Args:
        predictions: One a model.
        rows: The rows as each model read them; the same object where models share a tokenizer.
        readers: Tokenizer or processor of each model.
        task: Name in `TASKS`.

    Returns:
        For models with a tokenizer of their own: choices as ids of the first one's, or None where some row has another
        number of tokens; and as references the first one's numbers of tokens, so that the likelihood of a text is
        shared out over as many. Masked models keep their own, since other tokens are masked. All else as it is.
    """
    if task not in LANGUAGE_MODELS:
        return list(predictions)
    translated = []
    for predicted, own, reader in zip(predictions, rows, readers, strict=True):
        if own is not rows[0]:
            choices = _renamed(predicted.choices, reader, readers[0]) if _same_lengths(own, rows[0]) else None
            counts = predicted.references if task == "masked_lm" else predictions[0].references
            predicted = replace(predicted, choices=choices, references=counts)
        translated.append(predicted)
    return translated


def _same_lengths(rows: Dataset, first: Dataset) -> bool:
    if not np.array_equal(count_tokens(rows), count_tokens(first)):
        return False
    if "labels" not in rows.column_names:
        return True
    return np.array_equal(count_tokens(rows, "labels"), count_tokens(first, "labels"))


def _renamed(choices: Any, reader: Any, first: Any) -> NDArray[np.int64]:
    own, known = _vocabulary(reader), _vocabulary(first)
    names = np.full(max(*own.values(), *choices.flat) + 1, NO_TOKEN)
    for token, i in own.items():
        names[i] = known.get(token, NO_TOKEN)
    return names[choices]


def _vocabulary(reader: Any) -> dict[str, int]:
    tokenizer = reader.tokenizer if isinstance(reader, ProcessorMixin) else reader
    return tokenizer.get_vocab()
