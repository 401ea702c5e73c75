"""Settings of `hf-shrink prune`: what was asked for, and what is refused before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_shrink.cli.distill_settings import DEFAULTS, QUIET, training_arguments
from hf_shrink.cli.output_folder import check_new_folder
from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import CRITERIA, PruningConfig
from hf_shrink.pruning.constraints import check_constraints
from hf_shrink.pruning.criteria import CALIBRATED
from hf_shrink.pruning.layouts import LAYOUTS
from hf_shrink.pruning.one_shot import READS_ROWS, find_criterion, find_scope, find_share
from hf_shrink.pruning.search import check_structures
from hf_shrink.pruning.structures import parse_structure

CUT = ("heads", "neurons")  # what can be cut out of the matrices
EVEN = "local"  # the scope that leaves all layers equally wide, as a stock model must be
CALIBRATION_SIZE = 256
SEARCH_SIZE = 2000


@dataclass(frozen=True)
class Words:
    """Which tokens stay.

    Args:
        corpus: Folder, file or Hub id of the texts.
        split: Of the corpus, where it has several.
        min_count: How often a token must come up.
        keep: Tokens that stay in any case.
    """

    corpus: str
    split: str | None = None
    min_count: int = 1
    keep: Sequence[str] = ()


@dataclass(frozen=True)
class Pruning:
    """What the command was asked for; see its options."""

    model: str
    dataset: str
    output_dir: Path
    train: bool = False
    method: str | None = None
    structure: str | None = None
    sparsity: float | None = None
    constraints: Mapping[str, Any] | None = None
    search: Mapping[str, Any] = field(default_factory=dict)  # what goes with constraints alone, where it was given
    layout: str | None = None
    words: Words | None = None
    scope: str | None = None
    max_module_sparsity: float | None = None
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
    def criterion(self) -> str:
        """What a weight is worth."""
        return self.method or ("magnitude" if self.constraints is None else "fisher")

    @property
    def structures(self) -> list[str] | None:
        """What goes as a whole, one after the other; None, with constraints, is all that a stock model can lose."""
        if self.structure is None:
            return ["unstructured"] if self.constraints is None else None
        return [name.strip() for name in self.structure.split(",")]

    @property
    def cuts_units(self) -> bool:
        """Whether whole neurons or heads go."""
        return bool(set(CUT) & set(self.structures or ()))

    @property
    def compared(self) -> str | None:
        """The scope: as it was given, or the one by which what is pruned can be cut out; None is the method's own."""
        return EVEN if self.scope is None and self.cuts_units else self.scope

    @property
    def uniform(self) -> bool:
        """Whether all layers stay equally wide."""
        return self.search.get("uniform", True)

    @property
    def rows_read(self) -> int:
        """Training rows that are read without training, at most."""
        return self.calibration_size or (CALIBRATION_SIZE if self.constraints is None else SEARCH_SIZE)

    @property
    def weights_go(self) -> bool:
        """Whether anything but tokens is pruned: the vocabulary may be all that was asked for."""
        asked = (self.method, self.structure, self.sparsity, self.scope, self.calibration_size, self.constraints)
        more = self.train or self.patterns or self.max_module_sparsity is not None
        return self.words is None or bool(more) or any(value is not None for value in asked)

    @property
    def reads_rows(self) -> bool:
        """Whether rows of the training split are needed."""
        if not self.weights_go:
            return False
        return self.train or self.constraints is not None or CRITERIA[self.criterion].facts["reads"] in READS_ROWS


def check_options(options: Pruning) -> None:
    """Refuse what cannot be, before anything is loaded.

    Args:
        options: What was asked for.
    """
    check_new_folder(options.output_dir)
    _check_words(options)
    if options.constraints is not None:
        _check_search(options)
        return
    _check_mode(options)
    if options.weights_go:
        _check_method(options)
        _check_structures(options)
        pruning_configs(options)
    if options.train:
        make_arguments(options)


def _check_words(options: Pruning) -> None:
    if options.words is not None and options.teacher is not None:
        raise ShrinkError(
            f"`teacher` must be left out with --vocabulary, got {options.teacher!r}: it reads tokens by the numbers "
            "that they had. Train with the teacher first, and prune the vocabulary of what comes of it."
        )


def _check_search(options: Pruning) -> None:
    """What goes with constraints, and what does not."""
    without = {
        "sparsity": options.sparsity,
        "scope": options.scope,
        "max_module_sparsity": options.max_module_sparsity,
        **options.patterns,
        "train": options.train or None,
        "teacher": options.teacher,
        "preset": options.preset,
        **options.schedule,
        **options.training,
    }
    for name, value in without.items():
        if value is not None:
            raise ShrinkError(
                f"`{name}` must be left out with --constraint, which alone says how much goes, and without training, "
                f"got {value!r}. Leave out one of the two; what comes out can be trained with hf-shrink distill."
            )
    check_constraints(options.constraints)
    check_structures(options.structures)
    if "update" in find_criterion(options.criterion).facts:
        raise ShrinkError(
            f"`method` must be one that tells what heads and neurons are worth with --constraint, got "
            f"{options.criterion!r}, which prunes single weights. Take fisher."
        )
    if options.layout is not None and options.layout not in LAYOUTS:
        raise ShrinkError(
            f"`layout` must be one of {', '.join(LAYOUTS)}, got {options.layout!r}. Choose one of these."
        )
    if options.layout is not None and options.uniform:
        raise ShrinkError(
            f"`layout` must be left out without --no-uniform, got {options.layout!r}: layers that are equally wide "
            "need none but native. Add --no-uniform."
        )


def _check_mode(options: Pruning) -> None:
    alone = {**options.search, **({} if options.layout is None else {"layout": options.layout})}
    if alone:
        name = next(iter(alone))
        raise ShrinkError(
            f"`{name}` must be left out without constraints, which it goes with, got {alone[name]!r}. Add for "
            "instance --constraint macs=0.5."
        )
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
    reads = CRITERIA[options.criterion].facts["reads"]
    if options.train and reads in CALIBRATED:
        raise ShrinkError(
            f"`method` must be one that needs no calibration rows with --train, got {options.criterion!r}. Leave out "
            "--train, or take magnitude or movement."
        )
    if not options.train and reads == "scores":
        raise ShrinkError(f"`method` must be one that needs no training, got {options.criterion!r}. Add --train.")


def _check_structures(options: Pruning) -> None:
    for name in options.structures or ():
        if name.isdecimal():
            raise ShrinkError(
                f"`structure` must be a name, got {name}. YAML reads 2:4 as a number: write it with quotes."
            )
        parse_structure(name)
        if options.sparsity is not None or not options.train:
            find_share(name, options.sparsity)
        if not options.train:
            find_scope(CRITERIA[options.criterion], name, options.compared)


def pruning_configs(options: Pruning) -> list[PruningConfig]:
    """What is pruned while the model trains, one config a structure.

    Args:
        options: What was asked for.

    Returns:
        The configs, checked; none where structures are searched within constraints.
    """
    given: dict[str, Any] = {} if options.compared is None or not options.train else {"scope": options.compared}
    if options.max_module_sparsity is not None:
        given["max_module_sparsity"] = options.max_module_sparsity
    names = options.structures if options.constraints is None and options.weights_go else None
    return [
        PruningConfig(
            method=options.criterion,
            structure=name,
            final_sparsity=options.sparsity,
            seed=options.seed,
            **given,
            **options.patterns,
            **options.schedule,
        )
        for name in names or ()
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
