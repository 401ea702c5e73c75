"""The teacher beside a Trainer: loaded, frozen, placed, and asked for what the student is to match."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hf_shrink.inputs.tasks import inner_model


class Teacher:
    """A frozen model in evaluation mode.

    Args:
        model: The teacher; its parameters stop requiring gradients.
        index: Order of its classes as the student has them, shape (C,), or None.
    """

    def __init__(self, model: nn.Module, index: torch.Tensor | None = None) -> None:
        self.model = model.requires_grad_(False).eval()
        self.parameters = forward_parameters(model)
        self.index = index

    def place(self, accelerator: Accelerator) -> None:
        """Put the teacher where the Trainer computes.

        Args:
            accelerator: The Trainer's own.
        """
        self.model = accelerator.prepare_model(self.model, evaluation_mode=True)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Run the teacher.

        Args:
            inputs: A prepared batch; what the teacher's `forward` does not know is left out.

        Returns:
            Logits of shape (..., C) in the student's class order.
        """
        known = {key: value for key, value in inputs.items() if key in self.parameters and key != "labels"}
        logits = self.model(**known).logits
        if self.index is not None:
            self.index = self.index.to(logits.device)
            logits = logits[..., self.index]
        return logits


def forward_parameters(model: nn.Module) -> frozenset[str]:
    """Names that a model's `forward` takes, without `**kwargs`."""
    parameters = inspect.signature(inner_model(model).forward).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)
