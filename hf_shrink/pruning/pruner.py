"""A model's masks from step to step: chosen by its weights' worth, held against its optimizer, kept in checkpoints."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.config import PruningConfig
from hf_shrink.pruning.criteria import CRITERIA
from hf_shrink.pruning.masks import zero_pruned
from hf_shrink.pruning.schedule import make_ramp
from hf_shrink.pruning.selection import keep_highest
from hf_shrink.pruning.structures import Structure, make_structure
from hf_shrink.pruning.structures.structure import ElementScores
from hf_shrink.pruning.trained_scores import TrainedScores
from hf_shrink.pruning.worth import FixedWorth, GradientWorth, Worth


class Pruner:
    """The masks of one model, for one `PruningConfig`; where they cannot be, the model is left untouched.

    Args:
        model: A transformers model, its adapters around it or not.
        config: What is pruned, by which criterion, and when.
        max_steps: Optimizer steps of the run.
    """

    def __init__(self, model: nn.Module, config: PruningConfig, max_steps: int) -> None:
        self.config = config
        self.ramp = make_ramp(config, max_steps)
        self.structure = make_structure(model, config.structure, config.targets, config.ignore)
        self.worth = _worth(config, self.structure)
        self.masks = {
            name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in self.structure.parameters.items()
        }
        self.step = 0  # optimizer steps taken
        self.sparsity = 0.0  # of the units, times their share
        self._is_late = False  # a choice was due, and there was nothing to choose by
        if config.max_module_sparsity < 1:
            self._keep(lambda name: torch.zeros_like(self.structure.parameters[name]), self.ramp.final_sparsity)

    def start(self) -> None:
        """Prune what is to be pruned before the first step."""
        if self.ramp.is_due(0):
            self._choose(optimizer=None)
        self.apply()

    def before_step(self) -> None:
        """Keep the optimizer from moving pruned weights; the gradients are there."""
        self.worth.before_step(self.masks)
        for name, parameter in self.structure.parameters.items():
            if parameter.grad is not None:
                zero_pruned(parameter.grad, self.masks[name])

    def after_step(self, optimizer: torch.optim.Optimizer, *, skipped: bool, rate: float, last: bool = False) -> None:
        """Choose anew where that is due, and put pruned weights back to zero.

        Args:
            optimizer: What has just stepped.
            skipped: Whether it did not, because gradients overflowed; such a step does not count.
            rate: Its learning rate as a share of the full one.
            last: Whether the run ends with it; then skipped steps leave no schedule unfinished.
        """
        moves = not skipped and self.step < self.ramp.end
        self.worth.after_step(self.masks, rate if moves else None)
        if not skipped:
            self.step += 1
        if last:
            self.step = max(self.step, self.ramp.end)
        if (last or not skipped) and (self._is_late or self.ramp.is_due(self.step)):
            self._choose(optimizer)
        self.apply()

    def apply(self) -> None:
        """Set pruned weights to zero."""
        for name, parameter in self.structure.parameters.items():
            zero_pruned(parameter, self.masks[name])

    def _choose(self, optimizer: torch.optim.Optimizer | None) -> None:
        target = self.ramp.sparsity(self.step)
        self._is_late = target > 0 and not self.worth.ready()
        if target == 0 or self._is_late:
            return
        self.worth.agree()
        kept = self._keep(self._score, target)
        self.masks = self.structure.masks(kept, self._score)
        pruned, total = (sum(count(units) for units in kept.values()) for count in (_pruned, Tensor.numel))
        self.sparsity = self.structure.share * pruned / total
        self.worth.chosen()
        if optimizer is not None and not self.worth.lets_grow:
            clear_state(optimizer, self.structure.parameters, self.masks)

    def _keep(self, score: ElementScores, sparsity: float) -> dict[str, Tensor]:
        share = self.structure.share  # both sparsities count weights, and units are to be counted
        most = min(self.config.max_module_sparsity / share, 1.0)
        return keep_highest(partial(self.structure.unit_scores, score), sparsity / share, self.config.scope, most)

    def _score(self, name: str) -> Tensor:
        score = self.worth.score(name)
        if not self.worth.lets_grow:
            # Zeroed weights may tie with living ones at 0: below it, or a pruned one could come back, and grow.
            zero_pruned(score, self.masks[name])
            score.sub_((~self.masks[name]).view(torch.uint8))
        return score

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold beside the model.

        Returns:
            Masks, and what the criterion remembers, by name.
        """
        counts = {"sparsity": torch.tensor(self.sparsity, dtype=torch.float64), "late": torch.tensor(self._is_late)}
        masks = {f"mask.{name}": mask for name, mask in self.masks.items()}
        remembered = {f"worth.{name}": tensor for name, tensor in self.worth.tensors().items()}
        return {"step": torch.tensor(self.step), **counts, **masks, **remembered}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint.

        Args:
            tensors: What `tensors` gave.

        Raises:
            ShrinkError: If they are of other weights.
        """
        names = {name.removeprefix("mask.") for name in tensors if name.startswith("mask.")}
        if names != set(self.masks):
            odd = sorted(names ^ set(self.masks))[0]
            raise ShrinkError(
                f"`resume_from_checkpoint` must hold the masks of the run's targets, but differs in {odd}. "
                "Resume with the pruning config that the checkpoint was trained with."
            )
        self.step, self.sparsity = int(tensors["step"]), float(tensors["sparsity"])
        self._is_late = bool(tensors["late"])
        for name, mask in self.masks.items():
            mask.copy_(tensors[f"mask.{name}"])
        self.worth.load({n.removeprefix("worth."): t for n, t in tensors.items() if n.startswith("worth.")})
        self.apply()

    def digest(self) -> str:
        """A name for the masks as they are: equal in two processes if all masks are.

        Returns:
            Hexadecimal digits.
        """
        found = hashlib.sha256()
        for name, mask in self.masks.items():
            found.update(name.encode())
            found.update(mask.cpu().numpy().tobytes())
        return found.hexdigest()


def _worth(config: PruningConfig, structure: Structure) -> Worth:
    scored = {name: structure.parameters[name] for name in structure.scored}
    reads = CRITERIA[config.method].facts["reads"]
    if reads == "scores":
        return TrainedScores(config.method, structure.parameters, structure.scored, config.score_learning_rate)
    if reads == "gradients":
        return GradientWorth(config.method, scored)
    return FixedWorth(config.method, scored, config.seed)


def _pruned(kept: Tensor) -> int:
    return kept.numel() - int(kept.sum())


def clear_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]
) -> None:
    """Forget what an optimizer remembers of pruned weights: AdamW's momentum would move them.

    Args:
        optimizer: Any; of its state only floating-point tensors of a parameter's shape hold something for each weight.
        parameters: By name.
        masks: By the same names, True = kept.
    """
    for name, parameter in parameters.items():
        for value in _state_of(optimizer, parameter):
            zero_pruned(value, masks[name])


def _state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Iterator[Tensor]:
    found: Iterable[object] = optimizer.state.get(parameter, {}).values()
    for value in found:
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point():
            yield value
