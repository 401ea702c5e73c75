"""Adapters on a pruned model, merged into it."""

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.targets import FLOATS, LINEAR

logger = logging.getLogger(__name__)


def merge_adapters(model: Any) -> nn.Module:
    """Merge a LoRA into its pruned base model, and keep the base's zeros.

    PEFT's own `merge_and_unload` fills them: a product of two small matrices has none. Where weights were pruned the
    adapter's part is dropped, so that the outputs are no longer those of base and adapter: evaluate what comes back,
    or train the adapter anew on it.

    Args:
        model: A `PeftModel` whose active adapters are not merged yet; it is left as it is.

    Returns:
        A plain transformers model, with exact zeros where the base's linear maps had them.

    Raises:
        ShrinkError: If there is no adapter to merge, it is merged already, or the base is quantized.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not _can_merge(model):
        raise ShrinkError(
            f"`model` must be a PeftModel with an adapter to merge, such as a LoRA, got {type(model).__name__}. "
            "Load one with PeftModel.from_pretrained(base, adapter)."
        )
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    for name, layer in layers.items():
        _check_layer(name, layer)
    merged = copy.deepcopy(model).merge_and_unload()
    filled, pruned = 0, 0
    for name, layer in layers.items():
        base = layer.get_base_layer()
        if isinstance(base, LINEAR):
            weight = merged.get_submodule(name.removeprefix("base_model.model.")).weight
            zeros = base.weight == 0
            filled += _clear(weight, zeros)
            pruned += int(zeros.sum())
    if filled:
        logger.warning(
            "%d of %d pruned weights would have been filled by the adapter, and stay zero: the outputs are not those "
            "of base and adapter any more. Evaluate the merged model.",
            filled,
            pruned,
        )
    return merged


def _can_merge(model: Any) -> bool:
    from peft import PeftMixedModel, PeftModel
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    if not isinstance(model, (PeftModel, PeftMixedModel)) or not isinstance(model.base_model, BaseTuner):
        return False
    return any(isinstance(layer, BaseTunerLayer) for layer in model.modules())


def _check_layer(name: str, layer: Any) -> None:
    if layer.merged:
        raise ShrinkError(
            f"`model` must have its adapters unmerged, got {name} with {layer.merged_adapters} merged: which weights "
            "were pruned cannot be told any more. Load base and adapter anew."
        )
    base = layer.get_base_layer()
    if isinstance(base, nn.Linear) and base.weight.dtype not in FLOATS:
        raise ShrinkError(
            f"`model` must have float weights to merge, got {base.weight.dtype} in {name}. "
            "Load the base without quantization_config."
        )


@torch.no_grad()
def _clear(weight: Tensor, zeros: Tensor) -> int:
    filled = int((weight[zeros] != 0).sum())
    weight.masked_fill_(zeros, 0)
    return filled
