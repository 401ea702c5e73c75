"""Models and rows that the tests of quantization share."""

import torch

from tests.models import tiny_bert_classifier, tiny_tokenizer

TEXTS = ["my card is lost", "help", "where is the money please", "top up failed with pending cash transfer"]


def real_proportions(**config):
    """Embeddings are most of the weights, as in small encoders, so a table left in float shows in the size."""
    sizes = {"vocab_size": 30000, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    return tiny_bert_classifier(**{**sizes, **config})


def inputs(texts=TEXTS):
    return tiny_tokenizer()(texts, padding=True, return_tensors="pt")


def logits(model, **batch):
    with torch.no_grad():
        return model(**(batch or inputs())).logits
