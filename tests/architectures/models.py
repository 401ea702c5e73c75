"""Tiny models of all families that `hf_shrink.architectures` describes: unequal widths, random norms and biases."""

from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from tests.models import randomize

VOCABULARY = 60
Inputs = dict[str, Any]
_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "initializer_range": 0.2,
}
_TEXT_ENCODER = {**_ENCODER, **_TOKENS, "max_position_embeddings": 48}
_DECODER = {**_ENCODER, **_TOKENS, "num_key_value_heads": 2, "max_position_embeddings": 48}
_T5 = {
    **_TOKENS,
    "d_model": 32,
    "d_kv": 10,
    "d_ff": 40,
    "num_layers": 4,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "initializer_factor": 0.5,
    "decoder_start_token_id": 0,
}
_WINDOWS = {"sliding_window": 3, "head_dim": 10}

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **_TEXT_ENCODER},
    "roberta": {"model_type": "roberta", **_TEXT_ENCODER},
    "xlm-roberta": {"model_type": "xlm-roberta", **_TEXT_ENCODER},
    "camembert": {"model_type": "camembert", **_TEXT_ENCODER},
    "distilbert": {
        "model_type": "distilbert",
        **_TOKENS,
        "dim": 32,
        "n_layers": 4,
        "n_heads": 4,
        "hidden_dim": 40,
        "max_position_embeddings": 48,
        "initializer_range": 0.2,
    },
    "vit": {"model_type": "vit", **_ENCODER, "image_size": 16, "patch_size": 8},
    "gpt2": {
        "model_type": "gpt2",
        **_TOKENS,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_inner": 40,
        "n_positions": 48,
        "initializer_range": 0.2,
    },
    "llama": {"model_type": "llama", **_DECODER, "head_dim": 10},
    "mistral": {"model_type": "mistral", **_DECODER, **_WINDOWS},
    "qwen2": {
        "model_type": "qwen2",
        **_DECODER,
        "sliding_window": 3,
        "use_sliding_window": True,
        "max_window_layers": 2,
    },
    "qwen3": {
        "model_type": "qwen3",
        **_DECODER,
        **_WINDOWS,
        "use_sliding_window": True,
        "max_window_layers": 2,
    },
    "gemma": {"model_type": "gemma", **_DECODER, "head_dim": 10},
    "gemma2": {"model_type": "gemma2", **_DECODER, **_WINDOWS},
    "gemma3_text": {
        "model_type": "gemma3_text",
        **_DECODER,
        **_WINDOWS,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    },
    "t5": {"model_type": "t5", **_T5},
    "gated-t5": {"model_type": "t5", **_T5, "feed_forward_proj": "gated-gelu"},
    "whisper": {
        "model_type": "whisper",
        **_TOKENS,
        "d_model": 32,
        "encoder_layers": 4,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40,
        "num_mel_bins": 8,
        "max_source_positions": 20,
        "max_target_positions": 48,
        "decoder_start_token_id": 1,
        "init_std": 0.2,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    },
}
FAMILIES = tuple(CONFIGS)

_TEXT_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
_CAUSAL_HEADS = ("CausalLM", *_TEXT_HEADS)
_MASKED_HEADS = ("MaskedLM", "CausalLM", *_TEXT_HEADS, "MultipleChoice")
HEADS: dict[str, tuple[str, ...]] = {  # the leading one is what the family is used for most
    "bert": (*_MASKED_HEADS, "NextSentencePrediction"),
    "roberta": _MASKED_HEADS,
    "xlm-roberta": _MASKED_HEADS,
    "camembert": _MASKED_HEADS,
    "distilbert": ("MaskedLM", *_TEXT_HEADS, "MultipleChoice"),
    "vit": ("ImageClassification",),
    "gpt2": _CAUSAL_HEADS,
    "llama": _CAUSAL_HEADS,
    "mistral": _CAUSAL_HEADS,
    "qwen2": _CAUSAL_HEADS,
    "qwen3": _CAUSAL_HEADS,
    "gemma": ("CausalLM", "SequenceClassification", "TokenClassification"),
    "gemma2": ("CausalLM", "SequenceClassification", "TokenClassification"),
    "gemma3_text": ("CausalLM",),
    "t5": ("Seq2SeqLM", *_TEXT_HEADS),
    "gated-t5": ("Seq2SeqLM", *_TEXT_HEADS),
    "whisper": ("SpeechSeq2Seq", "AudioClassification", "CausalLM"),
}


def auto_class(head: str) -> Any:
    """`AutoModelFor<head>`; `AutoModel` for the empty name."""
    return getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")


def tiny_config(family: str, **changes: Any) -> PretrainedConfig:
    """A fresh config of a family."""
    return AutoConfig.for_model(**{**CONFIGS[family], **changes})


def tiny_model(family: str, head: str | None = None, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A fresh model of a family in evaluation mode, by default with its leading head."""
    torch.manual_seed(seed)
    head = HEADS[family][0] if head is None else head
    options = {key: changes.pop(key) for key in ("attn_implementation",) if key in changes}
    return randomize(auto_class(head).from_config(tiny_config(family, **changes), **options), seed)


def tiny_inputs(
    model: PreTrainedModel, *, rows: int = 2, tokens: int = 7, vocabulary: int = VOCABULARY
) -> dict[str, Any]:
    """Inputs that the model's `forward` takes, over the first `vocabulary` tokens, none of them special."""
    generator = torch.Generator().manual_seed(1)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(3, vocabulary, shape, generator=generator)

    dtype = next(model.parameters()).dtype
    config, class_name = model.config, type(model).__name__
    if config.model_type == "vit":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator).to(dtype)}
    if class_name.endswith("MultipleChoice"):
        return {"input_ids": ids(rows, 3, tokens)}
    if class_name == "WhisperForCausalLM":
        sound = torch.randn(rows, 20, 32, generator=generator)
        return {"input_ids": ids(rows, tokens), "encoder_outputs": (sound,), "use_cache": False}
    if config.model_type == "whisper":
        sound = {"input_features": torch.randn(rows, 8, 40, generator=generator).to(dtype)}
        return (
            sound if class_name.endswith("AudioClassification") else {**sound, "decoder_input_ids": ids(rows, tokens)}
        )
    if class_name == "T5ForSequenceClassification":
        return {"input_ids": torch.cat([ids(rows, tokens), torch.full((rows, 1), config.eos_token_id)], dim=1)}
    if class_name in ("T5ForConditionalGeneration", "T5Model"):
        return {"input_ids": ids(rows, tokens), "decoder_input_ids": ids(rows, tokens - 2)}
    return {"input_ids": ids(rows, tokens)}


def answer(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    """The model's logits (start and end joined) for its tiny inputs; without a head, its last hidden state."""
    with torch.no_grad():
        outputs = model(**(inputs or tiny_inputs(model)))
    if "start_logits" in outputs:
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state
