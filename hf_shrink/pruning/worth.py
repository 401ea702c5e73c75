"""What each weight of a model in training is worth to a criterion, and what has to be remembered for it."""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.criteria import CRITERIA


class Worth(Protocol):
    """The scores of a model's weights from step to step."""

    lets_grow: bool  # whether a pruned weight may come back

    def before_step(self, masks: Mapping[str, Tensor]) -> None:
        """Take what a step's gradients say; they are there, the optimizer has not used them."""

    def after_step(self, masks: Mapping[str, Tensor], rate: float | None) -> None:
        """Take what the optimizer did, at a share of the full learning rate; with None the scores stay."""

    def ready(self) -> bool:
        """Whether there is something to choose by."""

    def agree(self) -> None:
        """Make the scores equal in all processes."""

    def score(self, name: str) -> Tensor:
        """Worth of each element of a parameter, higher is kept, fp32; where none grows a new tensor from 0 on."""

    def chosen(self) -> None:
        """Masks were chosen by these scores."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what a checkpoint held."""


def noise(name: str, parameter: Tensor, seed: int) -> Tensor:
    """Uniform noise that is the same at every step, in every process and on every device.

    Args:
        name: Of the parameter.
        parameter: Of any shape.
        seed: Any number.

    Returns:
        In [0, 1), shape and device of the parameter, fp32.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(parameter.shape, generator=generator).to(parameter.device)


def average_over_processes(tensors: Mapping[str, Tensor]) -> None:
    """Make tensors equal in all processes, in place.

    Args:
        tensors: fp32; by the same names everywhere.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        for tensor in tensors.values():
            torch.distributed.all_reduce(tensor)
            tensor.div_(torch.distributed.get_world_size())


class FixedWorth:
    """Scores from the weights alone, or from noise.

    Args:
        method: Name in `CRITERIA`.
        parameters: By name; those that are scored.
        seed: Of the noise.
    """

    lets_grow = False

    def __init__(self, method: str, parameters: Mapping[str, nn.Parameter], seed: int) -> None:
        self._criterion = CRITERIA[method]
        self._parameters = parameters
        self._seed = seed

    def before_step(self, masks: Mapping[str, Tensor]) -> None:
        """Nothing is learnt from a step."""

    def after_step(self, masks: Mapping[str, Tensor], rate: float | None) -> None:
        """Nothing is learnt from a step."""

    def ready(self) -> bool:
        """Always."""
        return True

    def agree(self) -> None:
        """Weights and noise are equal already."""

    def score(self, name: str) -> Tensor:
        """The criterion of the weight as it is."""
        parameter = self._parameters[name]
        signal = noise(name, parameter, self._seed) if self._criterion.facts["reads"] == "noise" else None
        return self._criterion.function(parameter, signal)

    def chosen(self) -> None:
        """Nothing is remembered."""

    def tensors(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing is remembered."""


class GradientWorth:
    """Scores from the gradients of the steps since the last choice, averaged.

    Args:
        method: Name in `CRITERIA`.
        parameters: By name; those that are scored. None may be frozen: it would get no gradient.
    """

    lets_grow = False

    def __init__(self, method: str, parameters: Mapping[str, nn.Parameter]) -> None:
        check_trainable(method, parameters)
        self._criterion = CRITERIA[method].function
        self._parameters = parameters
        self._sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
        self._steps = 0
        self._pending: dict[str, Tensor] = {}

    def before_step(self, masks: Mapping[str, Tensor]) -> None:
        """Score the weights by the gradients that the optimizer is about to use."""
        self._pending = {
            name: self._criterion(p, p.grad) for name, p in self._parameters.items() if p.grad is not None
        }

    def after_step(self, masks: Mapping[str, Tensor], rate: float | None) -> None:
        """Add the scores."""
        if rate is not None:
            for name, scores in self._pending.items():
                self._sums[name].add_(scores)
            self._steps += 1
        self._pending = {}

    def ready(self) -> bool:
        """Once a step was taken."""
        return self._steps > 0

    def agree(self) -> None:
        """Average the sums."""
        average_over_processes(self._sums)

    def score(self, name: str) -> Tensor:
        """Mean over the steps."""
        return self._sums[name] / self._steps

    def chosen(self) -> None:
        """Begin anew."""
        for sums in self._sums.values():
            sums.zero_()
        self._steps = 0

    def tensors(self) -> dict[str, Tensor]:
        """The sums, and over how many steps."""
        return {"steps": torch.tensor(self._steps), **{f"sum.{name}": sums for name, sums in self._sums.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the sums."""
        self._steps = int(tensors["steps"])
        for name, sums in self._sums.items():
            sums.copy_(tensors[f"sum.{name}"])


def check_trainable(method: str, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse a method that reads gradients where there are none.

    Args:
        method: Name in `CRITERIA`.
        parameters: By name; those that are scored.

    Raises:
        ShrinkError: If one of them is frozen.
    """
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen:
        raise ShrinkError(
            f"`method` must not read gradients of frozen weights, got {method!r}, and {frozen[0]} (one of "
            f'{len(frozen)}) is frozen. Take "magnitude", or train the weights.'
        )
