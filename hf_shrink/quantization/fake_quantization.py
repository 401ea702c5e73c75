"""Modules that compute with quantized numbers while they train, and are plain ones again afterwards."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_shrink.architectures import architecture_of
from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.quantization.weight_grid import WeightGrid

logger = logging.getLogger(__name__)
PLAIN = (nn.Linear, nn.Embedding)  # exactly: what derives from them computes in a way of its own


class WeightFakeQuantizer(nn.Module):
    """Rounds a weight to its grid as it is used; it has no state of its own.

    Args:
        grid: The values that the weight may take.
    """

    def __init__(self, grid: WeightGrid) -> None:
        super().__init__()
        self.config = grid  # by this name torchao shows it and looks for it
        self.enabled = True

    def forward(self, weight: Tensor) -> Tensor:
        """Round, unless it is not time yet.

        Args:
            weight: Shape (O, I).

        Returns:
            Same shape.
        """
        return self.config.fake_quantize(weight) if self.enabled else weight


def find_modules(
    model: nn.Module, grid: WeightGrid, ignore: Sequence[str] = (), embedding_grid: WeightGrid | None = None
) -> dict[str, tuple[nn.Module, WeightGrid]]:
    """Find what is quantized: linear maps, and the token embeddings where they have a grid.

    Left out are the heads of the model, what `ignore` names, and modules that share their weight with one of these.
    A head that shares the weight of quantized embeddings is quantized with them.

    Args:
        model: A float model in memory.
        grid: Of the linear maps.
        ignore: Full names of modules, or "re:" with a regular expression that a full name begins with.
        embedding_grid: Of the token embeddings; None leaves them in float.

    Returns:
        Modules and their grids by name, in the model's order.

    Raises:
        ShrinkError: If nothing is left, a name in `ignore` is none, or a module cannot be quantized.
    """
    _check_model(model)
    ignored, heads = _ignored(model, ignore), _heads(model)
    chosen: dict[str, tuple[nn.Module, WeightGrid]] = {
        name: (module, grid)
        for name, module in model.named_modules()
        if type(module) is nn.Linear and name not in ignored and id(module) not in heads
    }
    if embedding_grid is not None:
        chosen |= _embeddings(model, embedding_grid, ignored)
    found = _without_shared(model, chosen)
    if not found:
        raise ShrinkError(
            f"`model` must have linear maps that `ignore` leaves, got {type(inner_model(model)).__name__} and "
            f"ignore={list(ignore)}. Its heads and what is no torch.nn.Linear stay in float; ignore less."
        )
    for name, (module, own) in found.items():
        _check_module(name, module, own)
    return {name: found[name] for name, _ in model.named_modules() if name in found}


def make_fake_quantized(modules: Mapping[str, tuple[nn.Module, WeightGrid]], *, activations: bool) -> None:
    """Let modules compute with rounded weights, and in 8 bits with rounded inputs, as torchao's do.

    They change their class and stay the same objects: parameters, hooks and names are as they were.

    Args:
        modules: What `find_modules` gave.
        activations: Whether linear maps round their inputs to 8 bits too, with one range a token.
    """
    qat = require("torchao.quantization.qat", extra="torchao")
    per_token = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    for module, grid in modules.values():
        module.weight_fake_quantizer = WeightFakeQuantizer(grid)
        if isinstance(module, nn.Linear):
            module.__class__ = qat.FakeQuantizedLinear
            inputs = qat.IntxFakeQuantizer(per_token) if activations else None
            module.activation_fake_quantizer = inputs  # type: ignore[assignment]
        else:
            module.__class__ = qat.FakeQuantizedEmbedding


def enable(modules: Mapping[str, tuple[nn.Module, WeightGrid]], enabled: bool) -> None:
    """Switch the rounding of fake-quantized modules on or off.

    Args:
        modules: What `make_fake_quantized` changed.
        enabled: Whether they round.
    """
    for module, _ in modules.values():
        for part in module.children():
            part.enabled = enabled  # type: ignore[assignment]


def make_plain(modules: Mapping[str, tuple[nn.Module, WeightGrid]]) -> None:
    """Turn fake-quantized modules back; their weights stay as they are.

    Args:
        modules: What `make_fake_quantized` changed.
    """
    for module, _ in modules.values():
        module.__class__ = nn.Linear if isinstance(module, nn.Linear) else nn.Embedding
        del module.weight_fake_quantizer
        if isinstance(module, nn.Linear):
            del module.activation_fake_quantizer


@torch.no_grad()
def put_on_grid(modules: Mapping[str, tuple[nn.Module, WeightGrid]]) -> None:
    """Round the weights themselves.

    Args:
        modules: By name, with their grids.
    """
    for module, grid in modules.values():
        module.weight.copy_(grid.nearest(module.weight))  # type: ignore[operator, arg-type]


def _ignored(model: nn.Module, ignore: Sequence[str]) -> set[str]:
    names = [name for name, _ in model.named_modules() if name]
    found: set[str] = set()
    for pattern in ignore:
        hits = {name for name in names if _matches(pattern, name)}
        if not hits:
            raise ShrinkError(
                f"`ignore` must name modules of the model, got {pattern!r}, which is none of {names[1:4]} and "
                f"{len(names)} in all. Write a full name, or re:.*output.* for all that match."
            )
        found |= hits
    return found


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("re:"):
        return name == pattern
    try:
        return re.match(pattern[3:], name) is not None
    except re.error as error:
        raise ShrinkError(
            f'`ignore` must hold regular expressions after re:, got {pattern!r}: {error}. Write "re:.*output.*".'
        ) from error


def _heads(model: nn.Module) -> set[int]:
    """The modules whose outputs are the model's: rounded they cost the most."""
    modules = dict(model.named_modules())
    try:
        paths = architecture_of(model).output_layers
    except ShrinkError:
        vocabulary = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
        if vocabulary is None:
            logger.warning(
                "Of %s it is not known which module is its head, and a quantized one costs the most. Name it in "
                "`ignore`, or describe the family with hf_shrink.register_architecture().",
                type(model).__name__,
            )
        return {id(vocabulary)}
    return {id(modules[path]) for path in paths if path in modules}


def _embeddings(model: Any, grid: WeightGrid, ignored: set[str]) -> dict[str, tuple[nn.Module, WeightGrid]]:
    table = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    if type(table) is not nn.Embedding:
        raise ShrinkError(
            f"`embeddings` must be left out for {type(model).__name__}, whose inputs are looked up in no plain table, "
            f"but in {type(table).__name__}. Leave them in float."
        )
    return {
        name: (module, grid)
        for name, module in model.named_modules()
        if type(module) in PLAIN and module.weight is table.weight and name not in ignored
    }


def _without_shared(
    model: nn.Module, chosen: dict[str, tuple[nn.Module, WeightGrid]]
) -> dict[str, tuple[nn.Module, WeightGrid]]:
    """Leave out weights that a module which stays in float uses too: it would get the rounded one at the end."""
    used = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    rounded = Counter(id(module.weight) for module, _ in chosen.values())
    left = {name: pair for name, pair in chosen.items() if rounded[id(pair[0].weight)] == used[id(pair[0].weight)]}
    for name in chosen.keys() - left.keys():
        logger.warning("%s stays in float: a module that is not quantized shares its weight.", name)
    return left


def _check_model(model: nn.Module) -> None:
    if inner_model(model) is not model:
        raise ShrinkError(
            "`model` must be trained as a whole for quantization-aware training, got one with an adapter, which could "
            "not be merged without leaving the grid. Train an adapter on a model that bitsandbytes loads in 4 bits."
        )
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.dtype.itemsize < 2 or type(parameter.data) is not Tensor:
            raise ShrinkError(
                f"`model` must have float weights, got {parameter.dtype} in {name}. Load it unquantized."
            )
        if parameter.is_meta:
            raise ShrinkError(f"`model` must be in memory, but {name} is not. Load it without offloading.")


def _check_module(name: str, module: nn.Module, grid: WeightGrid) -> None:
    width = module.weight.shape[-1]  # type: ignore[union-attr, index]
    if width % (grid.group_size or width):
        raise ShrinkError(
            f"`group_size` must divide the width of every module that is quantized, got {grid.group_size} and "
            f"{width} in {name}. Give another one, or name the module in `ignore`."
        )
    if "forward" in vars(module):  # as accelerate's hooks leave it: that forward knows nothing of rounding
        raise ShrinkError(
            f"`model` must not be spread over devices by `device_map`, but {name} has a forward of its own. "
            "Load the model on one device."
        )
