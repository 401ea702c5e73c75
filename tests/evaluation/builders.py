"""Tiny models of several tasks over `tiny_tokenizer`'s vocabulary, and rows to compare them on."""

import numpy as np
import torch
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig, GPT2Config

from tests.models import WORDS, randomize, tiny_tokenizer

CLASSES = ["lost", "top up", "transfer"]
TAGS = ["O", "B-CARD", "I-CARD", "B-CASH", "I-CASH"]


def tiny_bert(auto_class, *, seed=0, layers=2, **config):
    settings = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        **config,
    }
    torch.manual_seed(seed)
    return randomize(getattr(transformers, auto_class).from_config(BertConfig(**settings)), seed)


def tiny_gpt2(*, seed=0, layers=2, **config):
    settings = GPT2Config(
        vocab_size=len(tiny_tokenizer()),
        n_embd=32,
        n_layer=layers,
        n_head=4,
        n_positions=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=0.1,
        **config,
    )
    torch.manual_seed(seed)
    return randomize(transformers.AutoModelForCausalLM.from_config(settings), seed)


def classifier(*, seed=0, layers=2, names=CLASSES, **config):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return tiny_bert("AutoModelForSequenceClassification", seed=seed, layers=layers, **labels, **config)


def texts(rows, *, seed=0, longest=9):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(2, longest))) for _ in range(rows)]


def labelled(rows=24, *, names=CLASSES, seed=0):
    draw = np.random.default_rng(seed + 1)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict(
        {"text": texts(rows, seed=seed), "label": draw.integers(0, len(names), rows).tolist()}, features=features
    )


def tagged(rows=12, *, seed=0):
    draw = np.random.default_rng(seed + 1)
    words = [text.split() for text in texts(rows, seed=seed)]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=TAGS))})
    return Dataset.from_dict(
        {"tokens": words, "ner_tags": [draw.integers(0, len(TAGS), len(row)).tolist() for row in words]},
        features=features,
    )


def logits_of(model, text):
    """One row alone, without padding: what a batch must agree with."""
    with torch.no_grad():
        return model(**tiny_tokenizer()(text, return_tensors="pt")).logits[0]


class Unreadable(torch.nn.Module):
    """Makes a model fail the test as soon as anybody runs it."""

    def forward(self, *inputs, **named):
        raise AssertionError("the model ran before the input was checked")


def never_run(model):
    """The same model, whose first layer refuses to work."""
    model.base_model.embeddings = Unreadable()
    return model
