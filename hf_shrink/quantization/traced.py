"""What is traced of a model to make a graph of it: tensors in, tensors out, and which of their sizes are free."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.sample_inputs import sample_inputs as sample_any_inputs
from hf_shrink.inputs.graph_feed import PAST, PRESENT
from hf_shrink.inputs.positions import max_positions

# Task to the graph's outputs, named as Optimum's ORTModel classes read them; generators give their cache besides.
OUTPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "single_label_classification": ("logits",),
        "multi_label_classification": ("logits",),
        "regression": ("logits",),
        "token_classification": ("logits",),
        "question_answering": ("start_logits", "end_logits"),
        "masked_lm": ("logits",),
        "causal_lm": ("logits",),
        "feature_extraction": ("last_hidden_state",),
        "image_classification": ("logits",),
    }
)
ROWS, TOKENS = 2, 16  # tracing tends to take a size of 1 for a constant
ROW_AXIS = {0: "batch_size"}
TOKEN_AXES = {0: "batch_size", 1: "sequence_length"}
MASK_AXES = {0: "batch_size", 1: "total_sequence_length"}
PAST_AXES = {0: "batch_size", 2: "past_sequence_length"}
Past = tuple[tuple[Tensor, Tensor], ...]  # keys and values of each layer, shape (B, heads, P, D)


@dataclass(frozen=True)
class Traced:
    """What an exporter is handed.

    Args:
        module: Takes the sample by name and gives a tuple of tensors.
        sample: Inputs by name; those of a past are nested.
        axes: For each input the names of its free sizes, nested alike.
        inputs: Names of the graph's inputs, the past's one by one.
        outputs: Names of its outputs.
    """

    module: nn.Module
    sample: dict[str, Any]
    axes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]


def trace(model: PreTrainedModel, task: str) -> Traced:
    """Prepare a model to be traced.

    Args:
        model: What `to_float` gave.
        task: Name in `OUTPUTS`.

    Returns:
        Its module with a sample of 2 rows; a causal language model goes on from a past.
    """
    module = module_of(model, task)
    if task != "causal_lm":
        sample = sample_rows(model, ROWS, TOKENS)
        free = {name: TOKEN_AXES if value.ndim == 2 else ROW_AXIS for name, value in sample.items()}
        return Traced(module, dict(sample), free, list(sample), list(OUTPUTS[task]))
    feed = with_past(model, sample_rows(model, ROWS, TOKENS))
    nested = _nested(feed)
    axes = {
        **dict.fromkeys(nested, TOKEN_AXES),
        "attention_mask": MASK_AXES,
        "past_key_values": tuple((PAST_AXES, PAST_AXES) for _ in nested["past_key_values"]),
    }
    presents = [name.replace(PAST, PRESENT) for name in feed if name.startswith(PAST)]
    return Traced(module, nested, axes, list(feed), [*OUTPUTS[task], *presents])


def run_float(model: PreTrainedModel, feed: Mapping[str, Tensor], task: str) -> tuple[Tensor, ...]:
    """The model's own answer.

    Args:
        model: What `to_float` gave.
        feed: As for a graph; what `sample_rows` made, or `with_past` of it.
        task: Name in `OUTPUTS`.

    Returns:
        One tensor for each of the graph's outputs: (B, C), (B, T, C), (B, T) or (B, T, D) of the task's own.
    """
    with torch.no_grad():
        return module_of(model, task)(**(_nested(feed) if task == "causal_lm" else feed))


def checked_feeds(model: PreTrainedModel, task: str, shapes: Sequence[tuple[int, int]]) -> Iterator[dict[str, Tensor]]:
    """Inputs of other shapes than those that were traced.

    Args:
        model: What `to_float` gave.
        task: Name in `OUTPUTS`.
        shapes: Rows and tokens.

    Yields:
        Inputs by name; of a causal language model each shape without a past, and with one of half of the tokens.
    """
    for rows, tokens in shapes:
        sample = sample_rows(model, rows, tokens, seed=1)
        if task != "causal_lm":
            yield sample
        else:
            yield with_past(model, sample, past=0)
            yield with_past(model, sample)


def module_of(model: PreTrainedModel, task: str) -> nn.Module:
    """A module of tensors in place of defaults and dataclasses, which a graph has not.

    Args:
        model: What `to_float` gave.
        task: Name in `OUTPUTS`.

    Returns:
        The module; the model is its "model".
    """
    return (_CachedOutputs(model) if task == "causal_lm" else _Outputs(model, OUTPUTS[task])).eval()


def sample_rows(model: PreTrainedModel, rows: int, tokens: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Random rows; of text the last one is padded to the others' length.

    Args:
        model: A model of text or pictures.
        rows: B, rows.
        tokens: T, tokens a row; cut to the model's positions. Pictures have their own size.
        seed: Seed of the tokens.

    Returns:
        Of text shape (B, T) each: those of "input_ids", "attention_mask" and "token_type_ids" that the model takes.
    """
    if model.main_input_name != "input_ids":
        return sample_any_inputs(model, batch_size=rows)
    tokens = min(tokens, max_positions(model.config) or tokens)
    vocabulary = cast("nn.Embedding", model.get_input_embeddings()).num_embeddings
    ids = torch.randint(vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    if (padding := model.config.pad_token_id) is not None:  # some families number positions by what is not padding
        ids[ids == padding] = (padding + 1) % vocabulary
    mask = torch.ones_like(ids)
    if rows > 1:  # a row by itself has no padding
        mask[-1, tokens // 2 + 1 :] = 0
    sample = {"input_ids": ids, "attention_mask": mask}
    if model.config.to_dict().get("type_vocab_size", 0) > 1:  # RoBERTa takes them, and has one type
        sample["token_type_ids"] = torch.zeros_like(ids)
    taken = inspect.signature(model.forward).parameters
    return {name: values for name, values in sample.items() if name in taken}


def with_past(model: PreTrainedModel, sample: Mapping[str, Tensor], past: int | None = None) -> dict[str, Tensor]:
    """Let a causal language model read the first tokens, as the past of the others.

    Args:
        model: What `to_float` gave.
        sample: Ids and mask, shape (B, T) each.
        past: P, tokens of the past; None for half of them.

    Returns:
        The inputs of a graph: ids (B, T - P), mask (B, T), positions (B, T - P) where the model takes them, and keys
        and values (B, heads, P, D) for each layer.

    Raises:
        ShrinkError: If the model keeps something else of earlier tokens than their keys and values.
    """
    ids, mask = sample["input_ids"], sample["attention_mask"]
    split = ids.shape[1] // 2 if past is None else past
    read = max(split, 1)  # the shapes of an empty past are known by a full one
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=ids[:, :read], attention_mask=mask[:, :read], past_key_values=cache, use_cache=True)
    layers: list[Any] = list(cache.layers)
    if not layers or any(
        not isinstance(vars(layer).get("keys"), Tensor) for layer in layers
    ):  # as of linear attention
        raise ShrinkError(
            f"`model` must keep keys and values of earlier tokens to become a graph that generates, but "
            f"{type(model).__name__} does not. Quantize another architecture, or with a method of bitsandbytes."
        )
    feed = {"input_ids": ids[:, split:], "attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        feed["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, split:]
    for i, layer in enumerate(layers):
        feed[f"{PAST}{i}.key"], feed[f"{PAST}{i}.value"] = layer.keys[:, :, :split], layer.values[:, :, :split]
    return feed


def _nested(feed: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keys and values of a feed as pairs under one name."""
    flat = [value for name, value in feed.items() if name.startswith(PAST)]
    rest = {name: value for name, value in feed.items() if not name.startswith(PAST)}
    return {**rest, "past_key_values": tuple(zip(flat[::2], flat[1::2], strict=True))}


class _Outputs(nn.Module):
    """Named tensors in, named tensors out."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        optional = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "pixel_values": pixel_values,
        }
        given = {name: values for name, values in optional.items() if values is not None}
        outputs = self.model(**given, return_dict=True)
        return tuple(outputs[name] for name in self.names)


class _CachedOutputs(nn.Module):
    """A causal language model that goes on from keys and values, and gives those of all tokens."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Past = (),
    ) -> tuple[Tensor, ...]:
        positions = {} if position_ids is None else {"position_ids": position_ids}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=DynamicCache(past_key_values),
            use_cache=True,
            **positions,
        )
        layers = outputs.past_key_values.layers
        return (outputs.logits, *chain.from_iterable((layer.keys, layer.values) for layer in layers))
