"""Settings of `hf-shrink prune`: what was asked for, and what is refused before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_shrink.cli.distill_settings import DEFAULTS, ON_CARD, QUIET, training_arguments
from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse
from hf_shrink.pruning import CRITERIA, PruningConfig
from hf_shrink.pruning.criteria import CALIBRATED
from hf_shrink.pruning.one_shot import READS_ROWS, find_scope, find_share
from hf_shrink.pruning.structures import parse_structure

CUT = ("heads", "neurons")  # what can be cut out of the matrices
EVEN = "local"  # the scope that leaves all layers equally wide, as a stock model must be


@dataclass(frozen=True)
class Pruning:
    """What the command was asked for; see its options."""

    model: str
    dataset: str
    output_dir: Path
    train: bool = False
    method: str = "magnitude"
    structure: str = "unstructured"
    sparsity: float | None = None
    scope: str | None = None
    max_module_sparsity: float = 1.0
    patterns: Mapping[str, list[str]] = field(default_factory=dict)  # targets and ignore, where they were given
    schedule: Mapping[str, Any] = field(default_factory=dict)  # the other fields of `PruningConfig` that were given
    calibration_size: int | None = None
    teacher: str | None = None
    preset: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    eval_split: str = "test"
    text_column: str | None = None
    label_column: str | None = None
    max_length: int | None = None
    metric: str | None = None
    seed: int = 42

    @property
    def columns(self) -> dict[str, Any]:
        """How rows are read."""
        return {
            "text_column": self.text_column,
            "label_column": self.label_column,
            "max_length": self.max_length,
        }

    @property
    def structures(self) -> list[str]:
        """What goes as a whole, one after the other."""
        return [name.strip() for name in self.structure.split(",")]

    @property
    def compared(self) -> str | None:
        """The scope: as it was given, or the one by which what is pruned can be cut out; None is the method's own."""
        return EVEN if self.scope is None and set(CUT) & set(self.structures) else self.scope

    @property
    def reads_rows(self) -> bool:
        """Whether rows of the training split are needed."""
        return self.train or CRITERIA[self.method].facts["reads"] in READS_ROWS


def check_options(options: Pruning) -> None:
    """Refuse what cannot be, before anything is loaded.

    Args:
        options: What was asked for.

    Raises:
        ShrinkError: If an option is out of range, or does not go with the others.
    """
    check_new_folder(options.output_dir)
    _check_mode(options)
    _check_method(options)
    for name in options.structures:
        if name.isdecimal():
            raise ShrinkError(
                f"`structure` must be a name, got {name}. YAML reads 2:4 as a number: write it with quotes."
            )
        parse_structure(name)
        if options.sparsity is not None or not options.train:
            find_share(name, options.sparsity)
        if not options.train:
            find_scope(CRITERIA[options.method], name, options.compared)
    pruning_configs(options)
    if options.train:
        make_arguments(options)


def _check_mode(options: Pruning) -> None:
    given = [*options.schedule, *options.training]
    given += [name for name in ("teacher", "preset") if getattr(options, name) is not None]
    if given and not options.train:
        raise ShrinkError(
            f"`{given[0]}` must be left out where the model is not trained, which would not heed it. Add --train."
        )
    if options.train and options.calibration_size is not None:
        raise ShrinkError(
            "`calibration_size` must be left out with --train, which reads all rows, got "
            f"{options.calibration_size}. Leave out one of the two."
        )
    if options.preset is not None and options.teacher is None:
        raise ShrinkError(
            f"`preset` must be left out without a teacher, got {options.preset!r}. Name one with --teacher."
        )


def _check_method(options: Pruning) -> None:
    reads = CRITERIA[options.method].facts["reads"]
    if options.train and reads in CALIBRATED:
        raise ShrinkError(
            f"`method` must be one that needs no calibration rows with --train, got {options.method!r}. Leave out "
            "--train, or take magnitude or movement."
        )
    if not options.train and reads == "scores":
        raise ShrinkError(f"`method` must be one that needs no training, got {options.method!r}. Add --train.")


def pruning_configs(options: Pruning) -> list[PruningConfig]:
    """What is pruned while the model trains, one config a structure.

    Args:
        options: What was asked for.

    Returns:
        The configs, checked.
    """
    scope = {} if options.compared is None or not options.train else {"scope": options.compared}
    return [
        PruningConfig(
            method=options.method,
            structure=name,
            final_sparsity=options.sparsity,
            max_module_sparsity=options.max_module_sparsity,
            seed=options.seed,
            **scope,
            **options.patterns,
            **options.schedule,
        )
        for name in options.structures
    ]


def make_arguments(options: Pruning, preset: str | None = None) -> TrainingArguments:
    """Join what was asked for with a preset.

    Args:
        options: What was asked for.
        preset: Name in `PRESETS` where there is a teacher, or None.

    Returns:
        The arguments of `Trainer`; of `DistillationTrainer` where there is a teacher.

    Raises:
        ShrinkError: If there is no such argument.
    """
    given = {"seed": options.seed, **options.training}
    if options.teacher is not None:
        return training_arguments(options.output_dir, given, preset)
    known = {each.name for each in fields(TrainingArguments)}
    if unknown := sorted(set(given) - known):
        raise ShrinkError(
            f"`--set` must name a training argument, got {unknown[0]!r}. See TrainingArguments for all of them; those "
            "of distillation need --teacher."
        )
    settings: dict[str, Any] = {**QUIET, **DEFAULTS, **given}
    return TrainingArguments(output_dir=str(options.output_dir), **settings)


def pruning_use(options: Pruning, args: TrainingArguments | None) -> MethodUse:
    """What the card says of the pruning.

    Args:
        options: What was asked for.
        args: What was trained with, if anything was.

    Returns:
        The method with its real values.
    """
    criterion, configs = CRITERIA[options.method], pruning_configs(options)
    shares = list(dict.fromkeys(config.final_sparsity for config in configs))
    values = {
        "structure": options.structure,
        "sparsity": shares[0] if len(shares) == 1 else shares,
        "scope": configs[0].scope if args else find_scope(criterion, options.structures[0], options.compared),
        **options.patterns,
    }
    title = "Pruning"
    if args is not None:
        title = "Pruning during fine-tuning" if options.teacher is None else "Pruning in the same run"
        values |= {"schedule": configs[0].schedule, **options.schedule}
    if args is not None and options.teacher is None:  # else the distillation's own entry says how it was trained
        values |= {name: vars(args)[name] for name in (*ON_CARD, *options.training) if name in vars(args)}
    return MethodUse(criterion.name, title, criterion.paper, {"seed": options.seed, **values})
