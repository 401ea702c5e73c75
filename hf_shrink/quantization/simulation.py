"""What quantization does to single modules, in PyTorch: their numbers are rounded as a method would store them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.weight_grid import WeightGrid

ACTIVATION_LEVELS = 255  # steps of 8 bits
BLOCK_LEVELS = 127  # on each side of zero
Range = tuple[float, float]


def quantized_modules(model: nn.Module, numbers: Format) -> dict[str, nn.Module]:
    """Find what a method packs: linear maps, heads among them, and embeddings unless they stay in float.

    Args:
        model: Any model.
        numbers: How the method stores weights.

    Returns:
        `nn.Linear`, `Conv1D` and `nn.Embedding` modules by name, in the model's order.
    """
    kinds = (nn.Linear, Conv1D, nn.Embedding) if numbers.embedding_bits < 16 else (nn.Linear, Conv1D)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def stored_weight(module: nn.Module, numbers: Format) -> Tensor:
    """The weight of a module after it was stored.

    Args:
        module: One of `quantized_modules`.
        numbers: How.

    Returns:
        Shape and dtype of the weight.
    """
    weight = module.get_parameter("weight").detach()
    rows = weight.T if isinstance(module, Conv1D) else weight  # (outputs, inputs)
    bits = numbers.embedding_bits if isinstance(module, nn.Embedding) else numbers.bits
    missing = -rows.shape[1] % (numbers.group_size or rows.shape[1])
    padded = F.pad(rows, (0, missing)).contiguous()  # a last group that is not full is filled with zeros
    stored = WeightGrid(bits, numbers.group_size, numbers.symmetric).nearest(padded)[:, : rows.shape[1]]
    return (stored.T if isinstance(module, Conv1D) else stored).contiguous()


def rounded(values: Tensor, low: float, high: float) -> Tensor:
    """Values in 8 bits over a range, with a zero point.

    Args:
        values: Any shape.
        low: Lower end; 0 is always within.
        high: Upper end; what lies beyond an end is clipped.

    Returns:
        Same shape.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / ACTIVATION_LEVELS or 1.0
    zero = round(-low / scale)
    return ((values / scale).round() + zero).clamp(0, ACTIVATION_LEVELS).sub(zero).mul(scale)


def rounded_blocks(values: Tensor, group_size: int) -> Tensor:
    """Values in 8 bits, each group of neighbours over its own range, around zero.

    Args:
        values: Shape (..., D).
        group_size: Neighbours along the last axis that share a scale.

    Returns:
        Same shape.
    """
    width = values.shape[-1]
    groups = F.pad(values, (0, -width % group_size)).unflatten(-1, (-1, group_size))
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30) / BLOCK_LEVELS
    return (groups / scale).round().mul(scale).flatten(-2)[..., :width]


class Simulation:
    """A model whose modules can be quantized one by one, and are as before afterwards.

    Only linear maps and embeddings are rounded. Products of two activations, as in attention, stay in float, and sums
    are as exact as PyTorch's: a runtime may round more.

    Args:
        model: A float model; in evaluation mode while it runs.
        numbers: How the method stores numbers.
        batches: Inputs by name, for methods with fixed ranges of activations.

    Attributes:
        modules: What can be quantized, by name.

    Raises:
        ShrinkError: If ranges are to be found, and there are no batches.
    """

    def __init__(self, model: nn.Module, numbers: Format, batches: Sequence[Mapping[str, Tensor]] = ()) -> None:
        self.modules = quantized_modules(model, numbers)
        self._numbers = numbers
        self._weights: dict[str, Tensor] = {}
        self._ranges: dict[str, Range] = {}
        if numbers.activations == "static":
            if not batches:
                raise ShrinkError("`batches` must hold at least 1 batch to find ranges on, got none. Give some rows.")
            self._ranges = activation_ranges(model, self.modules, batches)

    @contextmanager
    def quantized(self, names: Iterable[str]) -> Iterator[None]:
        """Quantize modules for a while; a weight that they share with others changes in them alone.

        Args:
            names: Of `modules`.

        Yields:
            Nothing.
        """
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self._alone(name))
            yield

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        module = self.modules[name]
        if name not in self._weights:
            self._weights[name] = stored_weight(module, self._numbers)
        before = module.get_parameter("weight")
        hook = None
        if self._numbers.activations is not None and not isinstance(module, nn.Embedding):
            hook = module.register_forward_pre_hook(lambda _, inputs: self._round_input(name, inputs))
        module.weight = nn.Parameter(self._weights[name], requires_grad=before.requires_grad)
        try:
            yield
        finally:
            module.weight = before
            if hook is not None:
                hook.remove()

    def _round_input(self, name: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = inputs
        if self._numbers.activations == "block":
            return (rounded_blocks(first, self._numbers.group_size or first.shape[-1]), *others)
        low, high = self._ranges.get(name) or _range(first)
        return (rounded(first, low, high), *others)


def activation_ranges(
    model: nn.Module, modules: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Range]:
    """Least and largest input of each linear map over batches.

    Args:
        model: A float model.
        modules: Modules of it by name; embeddings are passed over.
        batches: Inputs by name.

    Returns:
        Both ends by name, for the modules that ran.
    """
    found: dict[str, Range] = {}

    def see(name: str, first: Tensor) -> None:
        low, high = _range(first)
        before = found.get(name, (low, high))
        found[name] = (min(low, before[0]), max(high, before[1]))

    linear = {name: module for name, module in modules.items() if not isinstance(module, nn.Embedding)}
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: see(name, inputs[0]))  # type: ignore[misc]
        for name, module in linear.items()
    ]
    try:
        with evaluation_mode([model]), torch.no_grad():
            for batch in batches:
                model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _range(values: Tensor) -> Range:
    return values.min().item(), values.max().item()
