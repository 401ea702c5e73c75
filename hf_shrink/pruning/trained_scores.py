"""Scores that are trained beside the weights, whose pruned ones keep their dense value (Sanh et al., 2020)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_shrink.pruning.criteria import CRITERIA
from hf_shrink.pruning.worth import average_over_processes, check_trainable


class TrainedScores:
    """One score a weight, moved by the straight-through gradient with an AdamW of its own.

    The model holds the pruned weights but while its optimizer steps: then it holds the dense ones, so that a weight
    which was pruned is still there when its score lets it come back. An optimizer of its own, because another group in
    the run's would not fit the learning rate schedule that was built for it.

    Args:
        method: Name in `CRITERIA` of a criterion that gives the gradient of a score.
        parameters: By name; all that masks cover.
        scored: Names of those that have scores; none may be frozen.
        learning_rate: Of the scores, at the height of the run's schedule.
    """

    lets_grow = True

    def __init__(
        self, method: str, parameters: Mapping[str, nn.Parameter], scored: tuple[str, ...], learning_rate: float
    ) -> None:
        check_trainable(method, {name: parameters[name] for name in scored})
        self._criterion = CRITERIA[method].function
        self._parameters = parameters
        self._learning_rate = learning_rate
        self.dense = {name: p.detach().clone() for name, p in parameters.items()}
        self.scores = {name: nn.Parameter(torch.zeros_like(parameters[name], dtype=torch.float32)) for name in scored}
        self._optimizer = torch.optim.AdamW(self.scores.values(), lr=learning_rate, weight_decay=0.0)
        self._steps = 0

    @torch.no_grad()
    def before_step(self, masks: Mapping[str, Tensor]) -> None:
        """Read the scores' gradients, and put the dense weights in place for the optimizer."""
        for name, score in self.scores.items():
            gradient = self._parameters[name].grad
            score.grad = None if gradient is None else self._criterion(self.dense[name], gradient)
        for name, dense in self.dense.items():
            self._parameters[name].copy_(dense)

    @torch.no_grad()
    def after_step(self, masks: Mapping[str, Tensor], rate: float | None) -> None:
        """Move the scores, and take the dense weights aside again."""
        if rate is not None:
            self._optimizer.param_groups[0]["lr"] = self._learning_rate * rate
            self._optimizer.step()
            self._steps += 1
        for score in self.scores.values():
            score.grad = None
        for name, dense in self.dense.items():
            dense.copy_(self._parameters[name])

    def ready(self) -> bool:
        """Once a step was taken: before it all scores are zero."""
        return self._steps > 0

    def agree(self) -> None:
        """Average the scores."""
        average_over_processes({name: score.data for name, score in self.scores.items()})

    def score(self, name: str) -> Tensor:
        """The trained score."""
        return self.scores[name].detach()

    def chosen(self) -> None:
        """The scores go on."""

    def tensors(self) -> dict[str, Tensor]:
        """Dense weights, scores, and what their optimizer remembers."""
        found = {"steps": torch.tensor(self._steps)}
        for name, dense in self.dense.items():
            found[f"dense.{name}"] = dense
        for name, score in self.scores.items():
            found[f"score.{name}"] = score.detach()
            for key, value in self._optimizer.state[score].items():
                found[f"optimizer.{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._steps = int(tensors["steps"])
        for name, dense in self.dense.items():
            dense.copy_(tensors[f"dense.{name}"])
        for name, score in self.scores.items():
            score.copy_(tensors[f"score.{name}"])
            if f"optimizer.step.{name}" in tensors:
                moments = {k: tensors[f"optimizer.{k}.{name}"].to(score.device) for k in ("exp_avg", "exp_avg_sq")}
                self._optimizer.state[score] = {"step": tensors[f"optimizer.step.{name}"], **moments}
