"""A training loop without a Trainer, small enough to be written once more by hand."""

import torch
from torch import nn

from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.pruner import Pruner


def toy() -> nn.Module:
    """Two linear maps and a bend."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 2))


def toy_rows(rows: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of which half say something, loudly, and half nothing."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(rows, 16, generator=generator)
    weights = torch.randn(8, 2, generator=generator)
    return inputs, torch.tanh(inputs[:, :8]) @ weights


def train_toy(config: PruningConfig, steps: int, *, stop: int | None = None):
    """Train the toy while it is pruned; gives the model, the pruner and the loss after the last step."""
    model = toy()
    inputs, targets = toy_rows()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    pruner = Pruner(model, config, steps)
    pruner.start()
    for step in range(steps if stop is None else stop):
        rows = slice(32 * (step % 8), 32 * (step % 8) + 32)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[rows]), targets[rows]).backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step(optimizer, skipped=False, rate=1.0)
    with torch.no_grad():
        return model, pruner, nn.functional.mse_loss(model(inputs), targets).item()
