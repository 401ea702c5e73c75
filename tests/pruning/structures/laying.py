"""A structure laid over a tiny model, with weights as scores."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_shrink.pruning.structures import Structure, make_structure


def lay(
    model: nn.Module, name: str, ignore: tuple[str, ...] = (), targets: tuple[str, ...] = ("Linear",)
) -> Structure:
    return make_structure(model, name, list(targets), list(ignore))


def magnitudes(structure: Structure) -> Any:
    """Element scores: absolute values; they may be asked for what is scored alone."""

    def score(name: str) -> Tensor:
        assert name in structure.scored
        return structure.parameters[name].detach().float().abs()

    return score


def kept_all(structure: Structure, value: bool = True) -> dict[str, Tensor]:
    return {name: torch.full(scores.shape, value) for name, scores in structure.unit_scores(magnitudes(structure))}


def masks_without(structure: Structure, name: str, *units: Any) -> dict[str, Tensor]:
    """Masks that prune some units of one set and nothing else."""
    kept = kept_all(structure)
    for unit in units:
        kept[name][unit] = False
    return structure.masks(kept, magnitudes(structure))


def apply(structure: Structure, masks: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            structure.parameters[name].mul_(mask)


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
