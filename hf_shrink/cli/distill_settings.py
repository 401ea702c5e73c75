"""Training settings of `hf-shrink distill`: what was asked for goes before the preset, the preset before defaults."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hf_shrink.architectures import architecture_of
from hf_shrink.distillation import DistillationTrainingArguments
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import MethodUse
from hf_shrink.evaluation.chosen_metric import choose_metric
from hf_shrink.evaluation.decoding import DECODERS
from hf_shrink.registry import Method

NO_PRESET = "none"
DEFAULTS = {"per_device_train_batch_size": 32}
QUIET = {"save_strategy": "no", "logging_strategy": "epoch", "report_to": []}
ON_CARD = (
    "temperature",
    "alpha",
    "logit_loss",
    "num_train_epochs",
    "learning_rate",
    "per_device_train_batch_size",
    "seed",
    "bf16",
)
METRIC_OF = {"regression": "mse", **dict.fromkeys(("causal_lm", "masked_lm", "seq2seq_lm"), "perplexity")}


def choose_preset(given: str | None, teacher: Any, task: str) -> str | None:
    """The preset of a run.

    Args:
        given: Name in `PRESETS`, "none", or None where nothing was said.
        teacher: The teacher.
        task: Name in `TASKS`.

    Returns:
        Name in `PRESETS`, or None. Where nothing was said, "classification" for single-label classifiers that are
        known to be encoders: a decoder's first token, which that preset compares, has seen nothing of the text.

    Raises:
        ShrinkError: If there is no such preset.
    """
    if given is None:
        return "classification" if task == "single_label_classification" and _is_encoder(teacher) else None
    if given not in (*PRESETS, NO_PRESET):
        raise ShrinkError(
            f"`preset` must be one of {[*sorted(PRESETS), NO_PRESET]}, got {given!r}. Choose one of these."
        )
    return None if given == NO_PRESET else given


def _is_encoder(model: Any) -> bool:
    try:
        return all(stack.name == "encoder" for stack in architecture_of(model).stacks)
    except ShrinkError:  # an unknown family
        return False


def training_arguments(
    output_dir: Path, given: Mapping[str, Any], preset: str | None = None
) -> DistillationTrainingArguments:
    """Join what was asked for with a preset.

    Args:
        output_dir: Of the run.
        given: Training arguments by name; they go before the preset, also where they equal a default.
        preset: Name in `PRESETS`, or None.

    Returns:
        The arguments, checked.

    Raises:
        ShrinkError: If there is no such argument.
    """
    known = {field.name for field in fields(DistillationTrainingArguments)}
    if unknown := sorted(set(given) - known):
        raise ShrinkError(
            f"`--set` must name a training argument, got {unknown[0]!r}. See TrainingArguments for all of them."
        )
    settings: dict[str, Any] = {**QUIET, **DEFAULTS, **(PRESETS[preset] if preset else {}), **given}
    return DistillationTrainingArguments(output_dir=str(output_dir), **settings)


def choose_task_metric(metric: str | None, task: str, num_labels: int | None) -> str:
    """The metric of the report, before anything is trained.

    Args:
        metric: Name in `METRICS`, or None for the usual one.
        task: Name in `TASKS`.
        num_labels: Of the teacher.

    Returns:
        Name of the metric.

    Raises:
        ShrinkError: If the task has no metric, or this one does not fit.
    """
    if task not in DECODERS:
        raise ShrinkError(
            f"`teacher` must be for a task that can be compared in the end ({', '.join(sorted(DECODERS))}), got one "
            f"for {task}. Train with DistillationTrainer in Python, which takes it."
        )
    name = metric or METRIC_OF.get(task, "accuracy")
    choose_metric(name, task, num_labels=num_labels)
    return name


def method_use(
    args: DistillationTrainingArguments, given: Mapping[str, Any], preset: str | None, logit_loss: Method
) -> MethodUse:
    """What the card says of the training.

    Args:
        args: What was trained with.
        given: What was asked for.
        preset: Name in `PRESETS`, or None.
        logit_loss: What compared the logits.

    Returns:
        The method with its real values.
    """
    names = dict.fromkeys([*ON_CARD, *(PRESETS[preset] if preset else ()), *given])
    values = {name: getattr(args, name) for name in names} | {"logit_loss": logit_loss.name}
    options = {**({"preset": preset} if preset else {}), **values}
    return MethodUse(logit_loss.name, "Knowledge distillation", logit_loss.paper, options)
