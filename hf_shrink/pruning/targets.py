"""Which linear maps of a model are pruned."""

import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.architectures import architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model, model_config

logger = logging.getLogger(__name__)

LINEAR = (nn.Linear, Conv1D)
FLOATS = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
)  # 8-bit floats are quantized, and come with scales
QUANTIZED_MODULES = ("bitsandbytes.", "torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
QUANTIZED_TENSORS = ("bitsandbytes.", "torchao.", "optimum.quanto.")
ADAPTER_PARTS = re.compile(r"\.(base_layer|original_module|modules_to_save\.[^.]+)(?=\.|$)")


def find_targets(model: nn.Module, targets: Sequence[str], ignore: Sequence[str]) -> dict[str, nn.Module]:
    """Find the linear maps to prune.

    A pattern is the name of a class ("Linear" stands for every linear map, `Conv1D` too), the full name of a module,
    or "re:" with a regular expression that a full name begins with. Under a PEFT adapter the name that a module has
    without it serves as well.

    Left out in any case: what is tied to an embedding, the adapter's own matrices, and of modules that share a weight
    all but the first. The heads of known families are left out unless a target other than a class hits them.

    Args:
        model: Any model, with an adapter or without.
        targets: Patterns, of which a module has to match one.
        ignore: Patterns, of which it must match none.

    Returns:
        `nn.Linear` and `Conv1D` modules by their name in `model.named_modules()`, in its order.

    Raises:
        ShrinkError: If nothing is left, or the weights are quantized or on the meta device.
    """
    _check_weights(model)
    heads, tied, adapters = _head_modules(model), _embedding_weights(model), _adapter_modules(model)
    found: dict[str, nn.Module] = {}
    seen = set(tied)
    for name, module in model.named_modules():
        if not isinstance(module, LINEAR) or id(module) in adapters or id(module.weight) in seen:
            continue
        hits = [pattern for pattern in targets if _hits(pattern, name, module)]
        if id(module) in heads:
            hits = [pattern for pattern in hits if not _is_class(pattern, module)]
        if hits and not any(_hits(pattern, name, module) for pattern in ignore):
            _check_plain(name, module)
            found[name] = module
            seen.add(id(module.weight))
    if not found:
        raise ShrinkError(
            f"`targets` must match linear maps that `ignore` leaves, got targets={list(targets)} and "
            f"ignore={list(ignore)}. {_what_there_is(model, tied, adapters)}"
        )
    _warn_of_misses(model, targets)
    return found


def as_rows(module: nn.Module, tensor: Tensor) -> Tensor:
    """Turn a tensor that is laid out as a module's weight so that its rows are the outputs, or such a one back.

    Args:
        module: `nn.Linear`, or `Conv1D`, which stores (inputs, outputs).
        tensor: Shape of the weight; or for the way back (outputs, inputs).

    Returns:
        A view: (outputs, inputs); or for the way back the shape of the weight.
    """
    return tensor.T if isinstance(module, Conv1D) else tensor


def _is_class(pattern: str, module: nn.Module) -> bool:
    return pattern == "Linear" or pattern in {parent.__name__ for parent in type(module).__mro__}


def _hits(pattern: str, name: str, module: nn.Module) -> bool:
    names = _names(name)
    if pattern.startswith("re:"):
        return any(_matches(pattern, each) for each in names)
    return pattern in names or _is_class(pattern, module)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern[3:], name) is not None
    except re.error as error:
        raise ShrinkError(
            f"`targets` and `ignore` must hold regular expressions after re:, got {pattern!r}: {error}. "
            'Write "re:.*attention.*".'
        ) from error


def _names(name: str) -> set[str]:
    """A module's name, and the one that it has without an adapter around."""
    return {name, ADAPTER_PARTS.sub("", name).removeprefix("base_model.model.")}


def _head_modules(model: nn.Module) -> set[int]:
    try:
        paths = architecture_of(inner_model(model)).output_layers
    except ShrinkError:  # of an unknown family nothing is known to be a head
        return set()
    modules = dict(inner_model(model).named_modules())
    heads = [modules[path] for path in paths if path in modules]
    return {id(part) for head in heads for part in _parts(head)}


def _parts(head: nn.Module) -> Iterator[nn.Module]:
    """A head, and what an adapter put in its place; not the layers of a head that is a module of several."""
    yield head
    if _is_adapter(head):
        yield from head.modules()


def _embedding_weights(model: nn.Module) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def _adapter_modules(model: nn.Module) -> set[int]:
    """The modules that an adapter added beside the model's, and the copies that it keeps of those it replaced."""
    added: set[int] = set()
    for module in model.modules():
        if not _is_adapter(module):
            continue
        for name, child in module.named_children():
            if name not in ("base_layer", "modules_to_save"):
                added |= {id(part) for part in child.modules()}
    return added


def _is_adapter(module: nn.Module) -> bool:
    if "peft" not in sys.modules:  # an adapter exists only where its library is loaded; the import takes seconds
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))


def _check_weights(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ShrinkError(
            f"`model` must be a torch module to prune, got {type(model).__name__}. Load one with from_pretrained()."
        )
    name = type(inner_model(model)).__name__
    if _is_quantized(model):
        raise ShrinkError(
            f"`model` must have float weights to prune, got a quantized {name}. Load it without quantization_config, "
            "prune, and quantize what comes out."
        )
    if any(weight.is_meta for weight in model.parameters()):
        raise ShrinkError(
            f"`model` must be in memory to prune, got a {name} with weights on the meta device. "
            "Load it without offloading."
        )


def _check_plain(name: str, module: nn.Module) -> None:
    if "weight" not in dict(module.named_parameters(recurse=False)):
        raise ShrinkError(
            f"`model` must hold its weights as plain parameters, got one that is computed in {name}. "
            "Remove the parametrization or torch.nn.utils.prune's masks first."
        )


def _is_quantized(model: nn.Module) -> bool:
    config = model_config(model)
    if config is not None and vars(config).get("quantization_config") is not None:
        return True
    if any(f"{type(module).__module__}.".startswith(QUANTIZED_MODULES) for module in model.modules()):
        return True
    return any(
        weight.dtype not in FLOATS
        or any(f"{type(each).__module__}.".startswith(QUANTIZED_TENSORS) for each in (weight, weight.data))
        for weight in model.parameters()
    )


def _what_there_is(model: nn.Module, tied: set[int], adapters: set[int]) -> str:
    linears = {n: m for n, m in model.named_modules() if isinstance(m, LINEAR) and id(m) not in adapters}
    free = {name: module for name, module in linears.items() if id(module.weight) not in tied}
    if not free:
        return f"There is no linear map to prune in {type(inner_model(model)).__name__}."
    counts = Counter(type(module).__name__ for module in free.values())
    classes = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    names = [*free][:3] + ([*free][-2:] if len(free) > 4 else [*free][3:])
    locked = sorted(set(linears) - set(free))
    note = f" {', '.join(locked)} cannot be pruned: tied to an embedding." if locked else ""
    return f"There are {classes}, such as {', '.join(names)}.{note} The heads have to be named."


def _warn_of_misses(model: nn.Module, targets: Sequence[str]) -> None:
    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, LINEAR)]
    for pattern in targets:
        if not any(_hits(pattern, name, module) for name, module in modules):
            logger.warning("`targets` entry %r matches no linear map.", pattern)
