"""Tokenizers of every kind, trained on the package's own rows, each with the tiny model of a family that uses it."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer
from transformers import AutoTokenizer

import hf_shrink
from tests.architectures.models import tiny_model

ROWS = Path(hf_shrink.__file__).parent / "data" / "banking77" / "train.parquet"
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
ADDED = "<order>"  # by the user
QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


@cache
def texts() -> tuple[str, ...]:
    """Short texts to train on."""
    return tuple(Dataset.from_parquet(str(ROWS)).select(range(0, 9000, 12))["text"])


def corpus() -> list[str]:
    """A part of them, and what is awkward: unknown signs, capitals, figures, several spaces, special tokens in it."""
    odd = [
        "Naïve café ☃ costs 12.50€?!",
        "  two  spaces ",
        "☃☃ <order> zzzz",
        "日本 ok",
        "a\nb\tc",
        "snow☃card cardſ",
        "my card is lost",
    ]
    return [*texts()[:40], *odd]


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts(), WordPieceTrainer(vocab_size=700, special_tokens=special))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def _byte_level(special: list[str], *, split: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(), BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet)
    )
    return tokenizer


def _roberta() -> Tokenizer:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _byte_fallback() -> Tokenizer:
    """As sentencepiece's BPE comes out of its conversion: no pre-tokenizer, and every way to split a token a merge."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts(), BpeTrainer(vocab_size=1200))
    order = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: i for i, token in enumerate([*special, *(token for token, _ in order)])}
    merges = [
        (token[:at], token[at:])
        for token in vocabulary
        if token not in special
        for at in range(1, len(token))
        if token[:at] in vocabulary and token[at:] in vocabulary
    ]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def _unigram(special: list[str], unknown: str, single: str, ends: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = UnigramTrainer(vocab_size=500, special_tokens=special, unk_token=unknown)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(end, tokenizer.token_to_id(end)) for end in ends]
    )
    return tokenizer


def _t5() -> Tokenizer:
    tokenizer = _unigram(["<pad>", "</s>", "<unk>"], "<unk>", "$A </s>", ["</s>"])
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(99, -1, -1)])
    return tokenizer


def _xlm_roberta() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return _unigram(special, "<unk>", "<s> $A </s>", ["<s>", "</s>"])


@dataclass(frozen=True)
class Case:
    """One kind as one family uses it."""

    build: Any
    tokenizer_class: str
    special: dict[str, str]
    family: str
    head: str | None
    settings: dict[str, Any]


_BERT = {name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_END = "<|endoftext|>"
CASES = {
    "word_piece_bert": Case(_word_piece, "BertTokenizer", _BERT, "bert", "MaskedLM", {}),
    "byte_level_gpt2": Case(
        lambda: _byte_level([_END]),
        "GPT2Tokenizer",
        dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), _END),
        "gpt2",
        "CausalLM",
        {},
    ),
    "byte_level_qwen2": Case(
        lambda: _byte_level([_END, "<|im_start|>", "<|im_end|>"], split=True),
        "Qwen2Tokenizer",
        {"eos_token": "<|im_end|>", "pad_token": _END},
        "qwen2",
        "CausalLM",
        {"tie_word_embeddings": True},
    ),
    "byte_level_roberta": Case(_roberta, "RobertaTokenizer", _ROBERTA, "roberta", "SequenceClassification", {}),
    "byte_fallback_llama": Case(
        _byte_fallback,
        "PreTrainedTokenizerFast",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
        "llama",
        "CausalLM",
        {"tie_word_embeddings": False},
    ),
    "unigram_t5": Case(
        _t5, "T5Tokenizer", {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}, "t5", "Seq2SeqLM", {}
    ),
    "unigram_xlm_roberta": Case(
        _xlm_roberta, "XLMRobertaTokenizer", _ROBERTA, "xlm-roberta", "TokenClassification", {}
    ),
}


def trained_tokenizer(case: Case, folder: Path) -> Any:
    """What AutoTokenizer makes of the files, with a token that the user added."""
    folder.mkdir(parents=True, exist_ok=True)
    case.build().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": case.tokenizer_class,
        "padding_side": "left" if case.head == "CausalLM" else "right",
        "truncation_side": "left",
        "model_max_length": 40,
        "chat_template": TEMPLATE,
        "model_input_names": ["input_ids", "attention_mask"],
        **case.special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([ADDED])
    return tokenizer


def model_for(case: Case, tokenizer: Any) -> Any:
    """A tiny model with rows beyond the tokenizer's, whose configs name the tokenizer's special tokens."""
    ids = {
        f"{name}_id": getattr(tokenizer, f"{name}_id")
        for name in ("pad_token", "bos_token", "eos_token")
        if getattr(tokenizer, name) is not None
    }
    if case.family == "t5":
        ids["decoder_start_token_id"] = ids["pad_token_id"]
    rows = len(tokenizer) + 13
    model = tiny_model(case.family, case.head, vocab_size=rows, **ids, **case.settings)
    if model.can_generate():
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def greedy(model: Any, tokenizer: Any, row: str) -> list[str]:
    """32 tokens that a model goes on with, among those of the tokenizer."""
    beyond = list(range(len(tokenizer), model.config.vocab_size)) or None
    made = model.generate(
        **tokenizer(row, return_tensors="pt"),
        min_new_tokens=32,
        max_new_tokens=32,
        do_sample=False,
        suppress_tokens=beyond,
    )
    return tokenizer.convert_ids_to_tokens(made[0, -32:])


def logits(model: Any, tokenizer: Any, row: str) -> torch.Tensor:
    """Of one row, cut to what the tiny models hold."""
    encoded = tokenizer(row, return_tensors="pt", truncation=True)
    if model.config.is_encoder_decoder:
        encoded["decoder_input_ids"] = encoded["input_ids"][:, :9]
    with torch.no_grad():
        return model(**encoded).logits[0]
