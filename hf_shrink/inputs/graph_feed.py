"""What an exported graph is fed: what it declares, whatever of it the caller has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

PAST, PRESENT = "past_key_values.", "present."  # as Optimum names keys and values of earlier tokens, in and out


@dataclass(frozen=True)
class GraphInput:
    """One declared input.

    Args:
        dtype: Its type; None is taken as it comes.
        shape: Its sizes; None for one that is free.
    """

    dtype: type | None
    shape: tuple[int | None, ...]


def complete_feed(given: Mapping[str, Any], declared: Mapping[str, GraphInput]) -> dict[str, Any]:
    """Add what a float model takes when nobody gives it.

    Args:
        given: Tensors or arrays by name, shape (B, …); a past as "past_key_values.0.key" and so on.
        declared: What the graph takes.

    Returns:
        What was given and is declared, and besides, where declared: token types of 0, a mask that hides no token,
        positions counted over the mask, and a past without tokens. What else is missing is missing here too.
    """
    feed = {name: value for name, value in given.items() if name in declared and value is not None}
    ids = feed.get("input_ids")
    if ids is None:
        return feed
    rows, tokens = ids.shape
    past = next((value.shape[2] for name, value in feed.items() if name.startswith(PAST)), 0)
    if "token_type_ids" in declared:
        feed.setdefault("token_type_ids", np.zeros((rows, tokens), np.int64))
    if is_cached(declared):
        feed.setdefault("attention_mask", np.ones((rows, past + tokens), np.int64))
    if "position_ids" in declared and "position_ids" not in feed and "attention_mask" in feed:
        positions = np.cumsum(np.asarray(feed["attention_mask"]), axis=-1) - 1  # padding on the left moves nothing
        feed["position_ids"] = np.maximum(positions, 0)[:, -tokens:]
    for name, expected in declared.items():
        if name.startswith(PAST) and name not in feed:
            feed[name] = np.zeros((rows, *(size or 0 for size in expected.shape[1:])), np.float32)
    return feed


def is_cached(declared: Mapping[str, GraphInput]) -> bool:
    """Whether a graph goes on from tokens that it has seen.

    Args:
        declared: What it takes.

    Returns:
        True for a language model with keys and values among its inputs.
    """
    return any(name.startswith(PAST) for name in declared)


def cache_to_feed(cache: Any) -> dict[str, torch.Tensor]:
    """The keys and values of a cache as inputs of a graph.

    Args:
        cache: What an earlier call gave as `past_key_values`, or a cache that is still empty; None for none.

    Returns:
        Shape (B, heads, P, D) each; nothing of an empty cache.
    """
    if cache is None or not cache.get_seq_length():
        return {}
    pairs = enumerate((layer.keys, layer.values) for layer in cache.layers)
    return {
        f"{PAST}{i}.{kind}": value for i, pair in pairs for kind, value in zip(("key", "value"), pair, strict=True)
    }


def cache_from_outputs(outputs: dict[str, torch.Tensor]) -> DynamicCache:
    """The keys and values that a graph gives back, as a cache.

    Args:
        outputs: All outputs by name; those that belong to the cache are taken out.

    Returns:
        The cache.
    """
    layers = sum(name.startswith(PRESENT) for name in outputs) // 2
    return DynamicCache(
        [tuple(outputs.pop(f"{PRESENT}{i}.{kind}") for kind in ("key", "value")) for i in range(layers)]
    )
