"""Gates on the units of feed-forward and attention blocks: what the loss says of each unit as a whole."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.calibration_rows import CalibrationRows
from hf_shrink.pruning.calibration import add_over_processes, check_reached, labels_by_row, loss_of, only_trainable
from hf_shrink.pruning.dead_units import Block

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Gates:
    """What a pass over rows tells of the units.

    Args:
        scores: By the name of a block, shape (units,): a criterion of the gradients of each row's loss with respect to
            factors that are 1 and that every unit's output goes through, averaged over rows.
        products: By the same names, X^T X of the inputs of the projection that reads the units, shape
            (inputs, inputs), fp32. Every position counts by the square of the loss's gradient with respect to what
            the projection gives there, and every row as much as any other.
    """

    scores: dict[str, Tensor]
    products: dict[str, Tensor]


def read_gates(model: nn.Module, blocks: Iterable[Block], rows: CalibrationRows, criterion: Criterion) -> Gates:
    """Read what the loss says of units (masks' Fisher information: Kwon et al., 2022, arXiv:2204.09656).

    Args:
        model: In any mode; it runs in evaluation mode and comes back in its own. No `.grad` is touched.
        blocks: Of the model.
        rows: With labels.
        criterion: From factors and their gradients to scores, such as the square.

    Returns:
        Scores and products.
    """
    held = {block.name: block for block in blocks}
    found = {name: _Gate(block) for name, block in held.items()}
    count = torch.zeros(1, device=next(model.parameters()).device)
    with evaluation_mode([model]), only_trainable(model, {}), torch.enable_grad(), _hung_in(model, found):
        for batch in rows.batches("Calibrating"):
            labels = labels_by_row(batch, rows.task)
            count += len(labels)
            if labels.any():  # the mean of none would be no number
                _take(found, loss_of(model, batch) * labels.sum(), labels.clamp_min(1), criterion)
    add_over_processes({"count": count, **{f"{name}.reached": gate.reached for name, gate in found.items()}})
    check_reached([name for name, gate in found.items() if not gate.reached])
    add_over_processes({name: gate.scores for name, gate in found.items()})
    add_over_processes({name: gate.products for name, gate in found.items()})
    return Gates(
        {name: gate.scores / count.to(gate.scores.device) for name, gate in found.items()},
        {name: gate.products for name, gate in found.items()},
    )


class _Gate:
    """What is gathered at one block."""

    def __init__(self, block: Block) -> None:
        self.width, device = block.pieces[-1].width, block.pieces[-1].parameter.device
        inputs = len(block.live) * self.width
        self.scores = torch.zeros(len(block.live), device=device)
        self.products = torch.zeros(inputs, inputs, device=device)
        self.reached = torch.zeros(1, device=device)
        self.forget()

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let the inputs through factors that are 1, one for each row and unit."""
        self.inputs = args[0]  # (B, T, units * width)
        rows = (self.inputs.shape[0], 1, len(self.scores), 1)
        self.factors = torch.ones(rows, dtype=self.inputs.dtype, device=self.inputs.device, requires_grad=True)
        gated = self.inputs.unflatten(-1, (-1, self.width)) * self.factors
        return (gated.flatten(-2), *args[1:])

    def forget(self) -> None:
        """Take no batch for one in which the projection had no part."""
        self.inputs = torch.zeros(0)
        self.factors, self.outputs = (torch.zeros(0, requires_grad=True) for _ in range(2))

    def leave(self, module: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> None:
        self.outputs = outputs

    def add(self, of_factors: Tensor, of_outputs: Tensor, labels: Tensor, criterion: Criterion) -> None:
        """Take a batch: gradients of the sum over its labels, so many a row (B,); of the outputs (B, T, D)."""
        self.reached.fill_(1)
        factors = self.factors.detach().flatten(1).float()
        own = of_factors.flatten(1).float() / labels.to(factors.device)[:, None]  # of the rows' own means
        self.scores += criterion(factors, own).sum(0)
        energy = of_outputs.float().square().sum(-1, keepdim=True)  # (B, T, 1); none where there is padding
        energy = energy / energy.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        weighted = (self.inputs.detach().float() * energy.sqrt()).flatten(0, 1)
        self.products.addmm_(weighted.T, weighted)


def _take(gates: Mapping[str, _Gate], loss: Tensor, labels: Tensor, criterion: Criterion) -> None:
    wanted = [tensor for gate in gates.values() for tensor in (gate.factors, gate.outputs)]
    check_reached([] if loss.requires_grad else list(gates))
    gradients = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
    for gate, of_factors, of_outputs in zip(gates.values(), gradients, gradients, strict=True):
        if of_factors is not None and of_outputs is not None:
            gate.add(of_factors, of_outputs, labels, criterion)
        gate.forget()


@contextmanager
def _hung_in(model: nn.Module, gates: Mapping[str, _Gate]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, gate in gates.items():
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(gate.enter).remove)
            stack.callback(module.register_forward_hook(gate.leave).remove)
        yield
