"""Metrics of language models, on the summed loss and the token count of each row."""

from typing import Any

import numpy as np

from hf_shrink.evaluation.metrics import METRICS

LANGUAGE = ("causal_lm", "masked_lm", "seq2seq_lm")
ADDRESS = "https://huggingface.co/docs/transformers/perplexity"


@METRICS.add("perplexity", paper=ADDRESS, tasks=LANGUAGE, higher_is_better=False, percent=False, trials=())
def perplexity(predictions: Any, references: Any) -> float:
    """Exponential of the mean loss over all predicted tokens; only comparable under one tokenizer.

    Args:
        predictions: Negative log-likelihood of each row's predicted tokens, in nats, shape (N,).
        references: Number of predicted tokens of each row, shape (N,).

    Returns:
        At least 1; the vocabulary's size for a model that knows nothing.
    """
    return float(np.exp(nats_per_token(predictions, references)))


@METRICS.add("nats_per_token", paper=ADDRESS, tasks=LANGUAGE, higher_is_better=False, percent=False, trials=())
def nats_per_token(predictions: Any, references: Any) -> float:
    """Mean loss over all predicted tokens: the logarithm of perplexity.

    Args:
        predictions: Negative log-likelihood of each row's predicted tokens, in nats, shape (N,).
        references: Number of predicted tokens of each row, shape (N,).

    Returns:
        Nats a token; NaN without a token.
    """
    tokens = float(np.sum(references))
    return float(np.sum(predictions)) / tokens if tokens else float("nan")
