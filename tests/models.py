"""Tiny models and tokenizers: built from configs, offline, with every norm and bias away from its neutral value."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel, PreTrainedTokenizerFast

WORDS = "my card is lost where the money transfer top up failed pending cash please help me with a new pin".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Word-level tokenizer with BERT's special tokens; ids 0 to 4 are special, then the words in order."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def randomize(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Move every norm and bias off 1 and 0, so that a dropped or swapped one shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def tiny_bert_classifier(num_labels: int = 3, *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """BERT, 4 layers x 32, over `tiny_tokenizer`'s vocabulary, dropout on as in real checkpoints."""
    settings = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "num_labels": num_labels,
        "pad_token_id": 0,
        "initializer_range": 0.3,  # at the usual 0.02 the logits hardly depend on the input
        **config,
    }
    torch.manual_seed(seed)
    return randomize(AutoModelForSequenceClassification.from_config(BertConfig(**settings)), seed)


def export_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a model in Optimum's layout: model.onnx, config.json with the architecture, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    # Two rows of different length: the exporter bakes in a batch of one, and drops a mask that is all ones.
    inputs = dict(tokenizer(["my card is lost", "where is the money transfer"], padding=True, return_tensors="pt"))
    axes = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model.eval(),
            (),
            folder / "model.onnx",
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=axes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
