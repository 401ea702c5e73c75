"""Training without dropout."""

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability of a model to 0; its config stays, so that a reloaded model has dropout again.

    Args:
        model: Changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):  # attention reads its own number and has no module for it
                setattr(module, name, 0.0)
