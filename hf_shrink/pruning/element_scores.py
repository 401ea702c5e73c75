"""What each weight of a model is worth to a criterion as the model stands."""

import math

import torch
from torch import Tensor, nn

from hf_shrink.inputs.calibration_rows import CalibrationRows
from hf_shrink.pruning.calibration import input_norms, mean_scores
from hf_shrink.pruning.structures import Structure
from hf_shrink.pruning.structures.structure import ElementScores
from hf_shrink.pruning.structures.unstructured import SingleWeights
from hf_shrink.pruning.worth import noise
from hf_shrink.registry import Method


def element_scores(
    model: nn.Module, structure: Structure, method: Method, rows: CalibrationRows | None, seed: int
) -> ElementScores:
    """What each weight of a model is worth to a criterion as the model stands.

    Args:
        model: In any mode; it is left as it is.
        structure: Laid over the model.
        method: Of `CRITERIA`, or one that reads the weights alone.
        rows: Of the criteria that read any.
        seed: Of the noise.

    Returns:
        From the name of a parameter to the worth of its elements; of single weights that are zero already, -inf: else
        a tie or a lot would prune living weights beyond the share.
    """
    scored = {name: structure.parameters[name] for name in structure.scored}
    function, reads = method.function, method.facts["reads"]
    signals: dict[str, Tensor] = {}
    if reads == "activations" and rows is not None:
        signals = input_norms(model, modules_of(model, structure), rows)
    elif reads == "gradients" and rows is not None:
        signals = mean_scores(model, scored, rows, function)

    @torch.no_grad()
    def score(name: str) -> Tensor:
        if reads == "gradients":
            worth = signals[name]  # averaged over batches already
        else:
            worth = function(scored[name], noise(name, scored[name], seed) if reads == "noise" else signals.get(name))
        return worth.masked_fill(scored[name] == 0, -math.inf) if isinstance(structure, SingleWeights) else worth

    return score


def modules_of(model: nn.Module, structure: Structure) -> dict[str, nn.Module]:
    """The linear maps that a structure scores.

    Args:
        model: What the structure was laid over.
        structure: Any.

    Returns:
        Modules by the names of their weights.
    """
    return {name: model.get_submodule(name.removesuffix(".weight")) for name in structure.scored}
