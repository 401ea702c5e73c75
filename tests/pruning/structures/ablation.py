"""Removal of neurons and heads by hooks, from lists of modules that owe nothing to the package."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

_DECODER = (r"layers\.\d+\.mlp\.down_proj", r"layers\.\d+\.self_attn\.o_proj")
_BERT = (r"encoder\.layer\.\d+\.output\.dense", r"attention\.output\.dense")
ENDS = {  # family -> the projections that neurons go into, and those that heads go into
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": (r"ffn\.lin2", r"out_lin"),
    "vit": (r"(layer\.\d+\.output\.dense|mlp\.fc2)", r"attention\.(output\.dense|o_proj)"),
    "gpt2": (r"mlp\.c_proj", r"attn\.c_proj"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _DECODER),
    "t5": (r"DenseReluDense\.wo", r"(Self|EncDec)Attention\.o"),
    "gated-t5": (r"DenseReluDense\.wo", r"(Self|EncDec)Attention\.o"),
    "whisper": (r"fc2", r"(self|encoder)_attn\.out_proj"),
}


def ends(model: nn.Module, family: str, structure: str) -> list[str]:
    """Names of the modules whose inputs are the units' outputs, in the model's order."""
    pattern = re.compile(rf"(.*\.)?{ENDS[family][structure == 'heads']}")
    return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]


def width(model: nn.Module, structure: str) -> int:
    """Inputs of such a module that belong to one unit."""
    if structure == "neurons":
        return 1
    fields = model.config.to_dict()
    heads = next(
        fields[name]
        for name in ("num_attention_heads", "encoder_attention_heads", "n_head", "n_heads", "num_heads")
        if fields.get(name)
    )
    hidden = next(fields[name] for name in ("hidden_size", "d_model", "n_embd", "dim") if fields.get(name))
    size = fields.get("head_dim") or fields.get("d_kv") or hidden // heads
    return size * (heads // (fields.get("num_key_value_heads") or heads))


@contextmanager
def ablated(model: nn.Module, names: Sequence[str], start: int, size: int) -> Iterator[None]:
    """Zero some inputs of some modules while the context is open."""

    def zero(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        inputs = args[0].clone()
        inputs[..., start : start + size] = 0
        return (inputs,)

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(model.get_submodule(name).register_forward_pre_hook(zero).remove)
        yield
