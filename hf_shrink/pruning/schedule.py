"""How sparse a model is at each step of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hf_shrink.errors import ShrinkError


class RampSettings(Protocol):
    """What `make_ramp` reads of a `PruningConfig`."""

    start_step: float
    end_step: float
    pruning_frequency: int
    schedule: str
    initial_sparsity: float
    final_sparsity: float | None
    milestones: list[float]


def constant(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """The final sparsity from the start on; what is pruned is chosen anew until the end."""
    return final


def linear(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """Rises by the same amount each step."""
    return initial + (final - initial) * progress


def cubic(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """Rises fast while much is redundant, and ever slower (Zhu & Gupta, arXiv:1710.01878)."""
    return final + (initial - final) * (1 - progress) ** 3


def exponential(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """The same share of what is left goes each step."""
    return 1 - (1 - initial) ** (1 - progress) * (1 - final) ** progress


def multi_step(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """Rises by equal amounts at the milestones, shares of the way from start to end."""
    return initial + (final - initial) * sum(progress >= milestone for milestone in milestones) / len(milestones)


def one_shot(progress: float, initial: float, final: float, milestones: Sequence[float]) -> float:
    """The final sparsity at the start; what is pruned then stays pruned."""
    return final


SCHEDULES: Mapping[str, Callable[[float, float, float, Sequence[float]], float]] = {
    "constant": constant,
    "cubic": cubic,
    "exponential": exponential,
    "linear": linear,
    "multi_step": multi_step,
    "one_shot": one_shot,
}


def sparsity_at(
    progress: float, *, schedule: str, initial: float, final: float, milestones: Sequence[float] = (1.0,)
) -> float:
    """The sparsity that a schedule asks for.

    Args:
        progress: Share in [0, 1] of the way from start to end.
        schedule: Name in `SCHEDULES`.
        initial: Share in [0, final] that is pruned at the start.
        final: Share in [initial, 1] that is pruned at the end.
        milestones: Of "multi_step": rising shares in (0, 1].

    Returns:
        Share in [initial, final]; at progress 1 exactly `final`.

    Raises:
        ShrinkError: If the progress is out of range or there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise ShrinkError(f'`schedule` must be one of {sorted(SCHEDULES)}, got {schedule!r}. The default is "cubic".')
    if not 0 <= progress <= 1:
        raise ShrinkError(f"`progress` must be in [0, 1], got {progress}. It is a share of the way from start to end.")
    if progress == 1:
        return final  # what the formula comes to may differ in the last bit
    return min(max(SCHEDULES[schedule](progress, initial, final, milestones), initial), final)


@dataclass(frozen=True)
class Ramp:
    """A schedule laid over the steps of a run.

    Args:
        start: Step at which pruning begins; 0 is before the first one.
        end: Step from which on the masks are frozen; with "one_shot" that is the start.
        frequency: Steps between two choices of what is pruned.
        schedule: Name in `SCHEDULES`.
        initial_sparsity: Share at the start.
        final_sparsity: Share at the end.
        milestones: Of "multi_step".
    """

    start: int
    end: int
    frequency: int
    schedule: str
    initial_sparsity: float
    final_sparsity: float
    milestones: tuple[float, ...]

    def is_due(self, step: int) -> bool:
        """Whether what is pruned is chosen anew.

        Args:
            step: Optimizer steps taken.

        Returns:
            True at the start, every `frequency` steps after it, and at the end.
        """
        if not self.start <= step <= self.end:
            return False
        return step == self.end or (step - self.start) % self.frequency == 0

    def sparsity(self, step: int) -> float:
        """The share that is pruned.

        Args:
            step: Optimizer steps taken.

        Returns:
            0.0 before the start, the schedule's share up to the end, and `final_sparsity` from there on.
        """
        if step < self.start:
            return 0.0
        if step >= self.end:
            return self.final_sparsity
        return sparsity_at(
            (step - self.start) / (self.end - self.start),
            schedule=self.schedule,
            initial=self.initial_sparsity,
            final=self.final_sparsity,
            milestones=self.milestones,
        )


def make_ramp(config: RampSettings, max_steps: int) -> Ramp:
    """Lay a config's schedule over a run.

    Args:
        config: Its start and end are shares of the run up to 1.0, rounded to the nearest step, and steps above it.
        max_steps: Optimizer steps of the run.

    Returns:
        The ramp, in steps.

    Raises:
        ShrinkError: If the run has no steps, or start and end do not lie in it, one after the other.
    """
    if not max_steps >= 1:
        raise ShrinkError(f"`max_steps` must be at least 1, got {max_steps}. A schedule needs a run of known length.")
    start = _step("start_step", config.start_step, max_steps)
    end = start if config.schedule == "one_shot" else _step("end_step", config.end_step, max_steps)
    if config.schedule != "one_shot" and not start < end:
        raise ShrinkError(
            f"`end_step` must be after start_step, got {config.end_step} (step {end} of {max_steps}) for a start_step "
            f"of {config.start_step} (step {start}). Move them apart, train longer, or take "
            'schedule="one_shot".'
        )
    if config.final_sparsity is None:
        raise ShrinkError("`final_sparsity` must be a share in (0, 1), got None. 0.8 leaves a fifth of the weights.")
    return Ramp(
        start=start,
        end=end,
        frequency=config.pruning_frequency,
        schedule=config.schedule,
        initial_sparsity=config.initial_sparsity,
        final_sparsity=config.final_sparsity,
        milestones=tuple(config.milestones),
    )


def _step(name: str, value: float, max_steps: int) -> int:
    if not 0 <= value < float("inf") or (value > 1 and value != int(value)):
        raise ShrinkError(
            f"`{name}` must be a share of the run in [0, 1] or a whole step above it, got {value}. "
            "Write half of the run as 0.5 and step 500 as 500."
        )
    step = round(value * max_steps) if value <= 1 else int(value)
    if step > max_steps:
        raise ShrinkError(
            f"`{name}` must be at most {max_steps}, the steps of this run, got {value:g}. "
            "Train longer, or write it as a share of the run, such as 0.5."
        )
    return step
