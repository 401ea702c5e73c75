"""A model's answers, written down while it trains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_shrink.dataset_distillation.dynamics import STATISTICS, Values, unseen
from hf_shrink.dataset_distillation.numbered_rows import NOT_NUMBERED
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.row_ids import CARRIED, ROW_IDS, ROW_LABELS

AT_ONCE = 256  # batches whose numbers wait on the device: fetching each would make the CPU wait for it


class Recorder:
    """Gather statistics of the rows that a model is trained on, from its own forward passes.

    Args:
        model: The model, not wrapped.
        statistics: Names in `STATISTICS`.
        rows: N, the size of the training set.
        shifted: Whether the answer to a token stands at the one before, as in causal language models.
    """

    def __init__(self, model: nn.Module, statistics: Sequence[str], rows: int, *, shifted: bool) -> None:
        self.dynamics = unseen(statistics, 0, rows)
        self.rows = rows
        self._epoch = 0
        self._shifted = shifted
        self._carried: dict[str, Tensor] = {}
        self._waiting: list[tuple[int, Tensor, dict[str, Tensor]]] = []
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def close(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin_epoch(self, epoch: int) -> None:
        """Write into the next line.

        Args:
            epoch: From 0.
        """
        self._epoch = epoch
        for name, values in self.dynamics.items():
            missing = unseen([name], max(0, epoch + 1 - len(values)), self.rows)[name]
            self.dynamics[name] = np.concatenate([values, missing])

    def load(self, dynamics: Mapping[str, Values]) -> None:
        """Go on from an earlier run.

        Args:
            dynamics: Statistic to values of shape (E, N).

        Raises:
            ShrinkError: If they are other statistics, or of other rows.
        """
        there = {name: values.shape[1] for name, values in dynamics.items()}
        if there != dict.fromkeys(self.dynamics, self.rows):
            raise ShrinkError(
                f"`resume_from_checkpoint` must hold {sorted(self.dynamics)} of {self.rows} rows, got {there}. Resume "
                "with the same scores and training set."
            )
        self.dynamics = {name: np.array(values) for name, values in dynamics.items()}

    def gather(self, device: torch.device) -> None:
        """Bring together what all processes have seen.

        Args:
            device: Where they talk to each other.
        """
        self.flush()
        if not torch.distributed.is_initialized():
            return
        for name, values in self.dynamics.items():
            shared = (
                torch.from_numpy(values).to(device).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            )
            torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
            self.dynamics[name] = torch.where(shared == -torch.inf, torch.nan, shared).cpu().numpy()

    def flush(self) -> None:
        """Fetch what waits on the device."""
        for epoch, ids, values in self._waiting:
            places = ids.cpu().numpy()
            for name, tensor in values.items():
                # A row may come twice where the last batch is filled up: its larger value stays, in any order.
                np.fmax.at(self.dynamics[name][epoch], places, tensor.cpu().numpy())
        self._waiting = []

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._carried = {name: kwargs[name] for name in CARRIED if name in kwargs}
        if _learns(module) and ROW_IDS not in self._carried:
            raise ShrinkError(NOT_NUMBERED)
        if "labels" in kwargs:
            self._carried.setdefault(ROW_LABELS, kwargs["labels"])
        return args, {name: value for name, value in kwargs.items() if name not in CARRIED}

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        if not _learns(module):
            return
        ids, labels = self._carried[ROW_IDS], self._carried.get(ROW_LABELS)
        if labels is None:
            raise ShrinkError("`train_dataset` must have labels, got batches without. Scores compare with them.")
        with torch.no_grad():
            logits = _logits(outputs)
            if self._shifted:
                logits, labels = logits[:, :-1], labels[:, 1:]
            if len(logits) != len(ids):
                raise ShrinkError(
                    f"`data_collator` must keep one line a row, got {len(logits)} of {len(ids)}. Do not pack rows."
                )
            values = {name: STATISTICS[name](logits, labels) for name in self.dynamics}
        self._waiting.append((self._epoch, ids, values))
        if len(self._waiting) >= AT_ONCE:
            self.flush()


def _logits(outputs: Any) -> Tensor:
    if not isinstance(outputs, Mapping) or outputs.get("logits") is None:
        raise ShrinkError(
            f"`model` must answer with `logits`, got a {type(outputs).__name__} without. Choose a model with a head "
            "for classes or tokens, and leave fused losses and `return_dict=False` out."
        )
    return outputs["logits"]


def _learns(module: nn.Module) -> bool:
    return module.training and torch.is_grad_enabled()
