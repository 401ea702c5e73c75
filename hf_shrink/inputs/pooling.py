"""One vector a row from the vectors of its tokens."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hf_shrink.errors import ShrinkError


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)


def _cls(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.long().argmax(1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.shape[1] - 1 - mask.flip(1).long().argmax(1))


def _at(states: Tensor, position: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), position]


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"mean": _mean, "cls": _cls, "last": _last, "max": _max}
)


def pool(states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Make one vector a row.

    Args:
        states: Shape (B, T, D).
        mask: Shape (B, T), nonzero at real tokens, on either side of the padding; None where all are real.
        pooling: "mean" of the tokens, their "max", or the first ("cls") or "last" of them.

    Returns:
        Shape (B, D).

    Raises:
        ShrinkError: If the states are no vectors of tokens, as the feature maps of a convolution.
    """
    if states.ndim != 3:
        raise ShrinkError(
            f"`pooling` must be left out for this model, whose states have shape {tuple(states.shape)} and not "
            "(rows, tokens, width). Compare its logits instead."
        )
    mask = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
    return POOLINGS[pooling](states, mask.bool())


def pooling_of(folder: Any, name: str = "1_Pooling") -> str:
    """How a sentence embedding model makes its vector.

    Args:
        folder: Where the model lies; its sentence-transformers settings are read where it has some.
        name: Folder within it that holds them.

    Returns:
        A name in `POOLINGS`; "mean" where nothing is said.

    Raises:
        ShrinkError: If the model pools in another way.
    """
    settings = Path(str(folder)) / name / "config.json"
    if not settings.is_file():
        return "mean"
    names = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
        "pooling_mode_max_tokens": "max",
        **{mode: mode for mode in ("mean", "cls", "max")},
        "lasttoken": "last",
    }
    found = json.loads(settings.read_text())
    chosen = [mode for mode, value in found.items() if mode.startswith("pooling_mode_") and value is True]
    if "pooling_mode" in found:  # one name or several, in place of a switch each
        chosen = [found["pooling_mode"]] if isinstance(found["pooling_mode"], str) else list(found["pooling_mode"])
    if len(chosen) != 1 or chosen[0] not in names:
        raise ShrinkError(
            f"`pooling` must be given, because {folder} pools by {chosen}. Choose one of {sorted(POOLINGS)}."
        )
    return names[chosen[0]]
