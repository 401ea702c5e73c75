"""What is pruned, by which criterion, and when."""

from dataclasses import dataclass, field
from itertools import pairwise

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.criteria import CRITERIA
from hf_shrink.pruning.schedule import SCHEDULES
from hf_shrink.pruning.structures import parse_structure
from hf_shrink.pruning.structures.n_m import check_pattern

SCOPES = ("global", "local")
DEFAULT_SPARSITY = 0.8
DEFAULT_IGNORE = "re:.*classifier.*"


@dataclass
class PruningConfig:
    """Settings of `PruningCallback`.

    Steps are optimizer steps that were taken: one that the loss scaler of fp16 skips does not count.

    Args:
        method: Name in `CRITERIA`.
        structure: What goes as a whole: "unstructured" (single weights), "2:4" or any N:M (N of M consecutive inputs
            stay), "block:32x32" (outputs x inputs), "neurons" (of feed-forward blocks) or "heads" (with the key and
            value heads that queries share).
        final_sparsity: Share in [0, 1) of the targets' weights (of their neurons, of their heads) that are zero from
            the end on; None is 0.8, and for N:M all that the pattern asks for, 0.5 for 2:4.
        initial_sparsity: Share in [0, final_sparsity] with which the schedule starts.
        schedule: Name in `SCHEDULES`: how the share rises from start to end.
        start_step: When pruning begins, at least 0; up to 1.0 a share of the run, above it a step.
        end_step: When the final sparsity is reached and the masks freeze, in the same form.
        pruning_frequency: Steps between two choices of what is pruned, at least 1.
        scope: "global" compares all targets with each other, "local" prunes each by the same share.
        targets: What is pruned: names of classes ("Linear" is every linear map, GPT-2's `Conv1D` too) or of modules,
            or "re:" with a pattern that a module's name begins with.
        ignore: What is not, in the same forms. The heads of known model families are left alone in any case, unless a
            target names the module.
        milestones: Of "multi_step": rising shares of the way from start to end, in (0, 1].
        max_module_sparsity: No target loses more than this share, in (0, 1], with the global scope.
        score_learning_rate: Of the scores that "movement" trains, above 0; it follows the run's learning rate
            schedule.
        seed: Of "random".
    """

    method: str = field(default="magnitude", metadata={"help": "What a weight is worth: a name in CRITERIA."})
    structure: str = field(
        default="unstructured",
        metadata={"help": "What goes as a whole: unstructured, N:M such as 2:4, block:32x32, neurons or heads."},
    )
    final_sparsity: float | None = field(
        default=None, metadata={"help": "Share that is zero at the end, 0 to 1; 0.8, and 0.5 for 2:4, if left out."}
    )
    initial_sparsity: float = field(default=0.0, metadata={"help": "Share that is zero at the start, 0 to 1."})
    schedule: str = field(default="cubic", metadata={"help": "How the share rises: a name in SCHEDULES."})
    start_step: float = field(
        default=0.0, metadata={"help": "When pruning begins: up to 1.0 a share of the run, above it a step."}
    )
    end_step: float = field(
        default=1.0, metadata={"help": "When the masks freeze: up to 1.0 a share of the run, above it a step."}
    )
    pruning_frequency: int = field(default=10, metadata={"help": "Steps between two choices of what is pruned."})
    scope: str = field(
        default="global", metadata={"help": "global compares all targets, local prunes each by the same share."}
    )
    targets: list[str] = field(
        default_factory=lambda: ["Linear"],
        metadata={"help": "What is pruned: classes, module names, or re: with a pattern."},
    )
    ignore: list[str] = field(
        default_factory=lambda: [DEFAULT_IGNORE],
        metadata={"help": "What is not pruned: classes, module names, or re: with a pattern."},
    )
    milestones: list[float] = field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.0],
        metadata={"help": "Of multi_step: rising shares of the way from start to end."},
    )
    max_module_sparsity: float = field(
        default=1.0, metadata={"help": "No target loses more than this share with the global scope, 0 to 1."}
    )
    score_learning_rate: float = field(
        default=0.01, metadata={"help": "Of the scores that movement trains; it follows the run's schedule."}
    )
    seed: int = field(default=0, metadata={"help": "Of the random method."})

    def __post_init__(self) -> None:
        self._check_names()
        most = structure_share(self.structure)
        if self.final_sparsity is None:
            self.final_sparsity = DEFAULT_SPARSITY if most is None else most
        self._check_sparsities(1.0 if most is None else most)
        self._check_steps()
        if not 0 < self.max_module_sparsity <= 1:
            raise ShrinkError(
                f"`max_module_sparsity` must be in (0, 1], got {self.max_module_sparsity}. 1 protects no module."
            )
        if not self.final_sparsity <= self.max_module_sparsity:
            raise ShrinkError(
                f"`max_module_sparsity` must be at least final_sparsity ({self.final_sparsity:g}), got "
                f"{self.max_module_sparsity}. 1 protects no module."
            )
        if not 0 < self.score_learning_rate < float("inf"):
            raise ShrinkError(
                f"`score_learning_rate` must be a finite number above 0, got {self.score_learning_rate}. "
                "Start with 0.01."
            )

    def _check_names(self) -> None:
        CRITERIA[self.method]  # raises with the names there are
        for name, choices in (("schedule", SCHEDULES), ("scope", SCOPES)):
            if (chosen := getattr(self, name)) not in choices:
                raise ShrinkError(f"`{name}` must be one of {sorted(choices)}, got {chosen!r}. Choose one of these.")
        for name in ("targets", "ignore"):
            patterns = getattr(self, name)
            if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
                raise ShrinkError(f'`{name}` must be a list of strings, got {patterns!r}. Write ["Linear"].')
        if not self.targets:
            raise ShrinkError('`targets` must hold at least one entry, got []. "Linear" is every linear map.')

    def _check_sparsities(self, most: float) -> None:
        # Each rule is written so that NaN, which compares false with everything, breaks it.
        final = self.final_sparsity
        if final is None or not 0 <= final < 1:
            raise ShrinkError(f"`final_sparsity` must be in [0, 1), got {final}. 0.8 leaves a fifth of the weights.")
        if not final <= most:
            raise ShrinkError(
                f"`final_sparsity` must be at most {most:g} with structure {self.structure!r}, got {final}. "
                "Leave it out for all that the pattern allows."
            )
        if not 0 <= self.initial_sparsity <= final:
            raise ShrinkError(
                f"`initial_sparsity` must be in [0, {final:g}] (up to final_sparsity), got {self.initial_sparsity}. "
                "0 starts dense."
            )

    def _check_steps(self) -> None:
        for name in ("start_step", "end_step"):
            if not 0 <= (step := getattr(self, name)) < float("inf") or (step > 1 and step != int(step)):
                raise ShrinkError(
                    f"`{name}` must be a share of the run in [0, 1] or a whole step above it, got {step}. "
                    "Write half of the run as 0.5 and step 500 as 500."
                )
        same_kind = (self.start_step > 1) == (self.end_step > 1)
        if self.schedule != "one_shot" and same_kind and not self.start_step < self.end_step:
            raise ShrinkError(
                f"`end_step` must be after start_step ({self.start_step:g}), got {self.end_step:g}. "
                'schedule="one_shot" prunes at once.'
            )
        if not self.pruning_frequency >= 1 or self.pruning_frequency != int(self.pruning_frequency):
            raise ShrinkError(
                f"`pruning_frequency` must be a whole number of steps from 1 on, got {self.pruning_frequency}. "
                "10 costs next to nothing."
            )
        rising = [0.0, *self.milestones]
        if not self.milestones or not all(a < b <= 1 for a, b in pairwise(rising)):
            raise ShrinkError(
                f"`milestones` must rise within (0, 1], got {self.milestones}. Halfway and the end are [0.5, 1.0]."
            )


def structure_share(structure: str) -> float | None:
    """The most that a structure can set to zero.

    Args:
        structure: Name of a structure.

    Returns:
        (M - N) / M for N:M, or None where nothing but all is the most.
    """
    method, options = parse_structure(structure)
    if method.name != "n:m":
        return None
    check_pattern(**options)
    return (options["m"] - options["n"]) / options["m"]
