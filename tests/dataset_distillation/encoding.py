"""Rows of unequal length, a tiny encoder of them, and their vectors one row at a time."""

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModel, BertConfig

from tests.models import WORDS, randomize, tiny_tokenizer

TEXTS = [
    "my card is lost",
    "where is the money",
    "please help me with a new pin where is the transfer",
    "cash",
    "top up failed",
    "the top up failed where is my money",
    "pending transfer",
    "me with a new card",
    "lost",
    "help me please my pin is pending",
    "new pin",
]


def tiny_encoder(seed=0, **config):
    """BERT without a head over `tiny_tokenizer`'s vocabulary, in evaluation mode."""
    torch.manual_seed(seed)
    settings = {"vocab_size": len(tiny_tokenizer()), "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    settings |= {"num_attention_heads": 4, "intermediate_size": 40, "max_position_embeddings": 64}
    settings |= {"initializer_range": 0.3, **config}
    return randomize(AutoModel.from_config(BertConfig(**settings)), seed)


def texts(count=None):
    """The texts as a dataset; beyond their number, random ones of the same words."""
    generator = np.random.default_rng(0)
    more = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range((count or 0) - len(TEXTS))]
    return Dataset.from_dict({"text": (TEXTS + more)[:count]})


def save(model, folder):
    """A folder of the model and its tokenizer."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def by_hand(model, *columns, pooling="mean", **options):
    """Each row alone, without padding, in double precision."""
    found = []
    for row in zip(*columns, strict=True):
        inputs = tiny_tokenizer()(*row, return_tensors="pt", **options)
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0].double()
        vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1], "max": states.amax(0)}[pooling]
        found.append((vector / vector.norm()).numpy())
    return np.stack(found)
