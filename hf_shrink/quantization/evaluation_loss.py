"""The loss of a model on the rows that its training is evaluated on."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from hf_shrink.evaluation.modes import evaluation_mode


@torch.no_grad()
def evaluation_loss(model: nn.Module, dataloaders: Iterable[Iterable[Mapping[str, Any]]]) -> float | None:
    """The loss that a model computes itself, averaged over batches, each with the weight of its rows.

    Args:
        model: It takes the batches by keyword, as the Trainer gives them; its mode stays as it is.
        dataloaders: Batches on the model's device; with several processes each has its share of them.

    Returns:
        The same in all processes; None where the model computes no loss, or there is no row.
    """
    accepted = inspect.signature(type(model).forward).parameters
    total = torch.zeros(2, dtype=torch.float64)  # loss times rows, rows
    with evaluation_mode([model]):
        for dataloader in dataloaders:
            for batch in dataloader:
                inputs = {name: value for name, value in batch.items() if name in accepted}
                loss = model(**inputs).get("loss")
                if loss is not None:
                    rows = len(next(value for value in inputs.values() if value is not None))
                    total += torch.tensor([float(loss) * rows, rows], dtype=torch.float64)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        on_device = total.to(next(model.parameters()).device)  # NCCL adds up on devices alone
        torch.distributed.all_reduce(on_device)
        total = on_device.cpu()
    return None if total[1] == 0 else float(total[0] / total[1])
