"""How much the loss rises without a layer."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import CalibrationRows, shared_by
from hf_shrink.pruning.calibration import mean_loss
from hf_shrink.pruning.layer_scores import LAYER_SCORES


@LAYER_SCORES.add("loss", paper="arXiv:2402.02834", labelled=True)
def loss(model: nn.Module, stacks: Mapping[str, nn.ModuleList], rows: CalibrationRows) -> dict[str, list[float]]:
    """Keep the layers without which the loss rises most (Kim et al., 2024).

    Args:
        model: In any mode.
        stacks: Its lists of layers.
        rows: With labels; they are read once for the whole model and once for each layer.

    Returns:
        Rise of the mean loss if the layer alone is left out; below 0 where that helps, infinite where the loss is then
        no finite number.

    Raises:
        ShrinkError: If the whole model's loss is not finite.
    """
    whole = mean_loss(model, rows)
    if not math.isfinite(whole):
        raise ShrinkError(
            f"`model` must have a finite loss on the calibration rows, got {whole}. "
            "Look for an overflow in half precision, or load it in float32."
        )
    rises: dict[str, list[float]] = {name: [] for name in stacks}
    total = sum(map(len, stacks.values()))
    with tqdm(total=total, desc="Leaving out layers", leave=False, disable=shared_by()[0] > 0) as bar:
        for name, stack in stacks.items():
            for layer in stack:
                with _bypassed(layer):
                    rise = mean_loss(model, rows) - whole
                rises[name].append(rise if math.isfinite(rise) else math.inf)
                bar.update()
    return rises


@contextmanager
def _bypassed(layer: nn.Module) -> Iterator[None]:
    """Let a layer hand on what it reads; it still runs, for T5's first one works out the positions of all."""

    def hand_on(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        read = args[0] if args else kwargs["hidden_states"]
        return (read, *output[1:]) if isinstance(output, tuple) else read

    handle = layer.register_forward_hook(hand_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
