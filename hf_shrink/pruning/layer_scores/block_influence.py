"""How far a layer turns the hidden states."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hf_shrink.inputs.calibration_rows import CalibrationRows
from hf_shrink.pruning.calibration import add_over_processes, watch_layers
from hf_shrink.pruning.layer_scores import LAYER_SCORES


@LAYER_SCORES.add("block_influence", paper="arXiv:2403.03853", labelled=False)
def block_influence(
    model: nn.Module, stacks: Mapping[str, nn.ModuleList], rows: CalibrationRows
) -> dict[str, list[float]]:
    """Keep the layers that turn the hidden states furthest (Men et al., 2024).

    Args:
        model: In any mode.
        stacks: Its lists of layers.
        rows: All of them are read once; padding does not count.

    Returns:
        1 less the cosine of what a layer reads and what it returns, averaged over the positions, in [0, 2].
    """
    layers = {f"{name}.{i}": layer for name, stack in stacks.items() for i, layer in enumerate(stack)}
    device = next(model.parameters()).device
    sums = {name: torch.zeros(2, device=device) for name in layers}  # of the distances, and of the positions

    def take(name: str, inputs: Tensor, outputs: Tensor) -> None:
        # Half the squared distance of the directions is 1 - cos, without the loss of digits near a cosine of 1.
        distances = (normalize(inputs, dim=-1) - normalize(outputs, dim=-1)).square().sum(-1) / 2
        sums[name] += torch.stack([distances.sum(), distances.new_tensor(len(distances))]).to(device)

    watch_layers(model, layers, rows, take)
    add_over_processes(sums)
    found = {name: (total / count).item() for name, (total, count) in sums.items()}
    return {name: [found[f"{name}.{i}"] for i in range(len(stack))] for name, stack in stacks.items()}
