"""The card of a run: from its report, or from its arguments and its log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import Trainer

from hf_shrink.distillation.arguments import FEATURE_LOSSES
from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.soft_labels import SoftLabels
from hf_shrink.distillation.teacher import Teacher
from hf_shrink.evaluation.provenance import MethodUse
from hf_shrink.evaluation.report import ShrinkReport
from hf_shrink.hub.card import model_card, training_card
from hf_shrink.inputs.remote import looks_like_path
from hf_shrink.inputs.tasks import find_task, inner_model, model_config
from hf_shrink.registry import Method

AnyTeacher = Teacher | TeacherCache | SoftLabels
REPORT = "shrink_report.json"
TRAINING = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "label_smoothing_factor",
    "disable_dropout",
    "optim",
    "bf16",
    "fp16",
    "seed",
)


@dataclass(frozen=True)
class CardFacts:
    """What the caller of `create_model_card` knows beyond the trainer; see its arguments."""

    language: tuple[str, ...] = ()
    license: str | None = None
    tags: tuple[str, ...] = ()
    model_name: str | None = None
    base_model: str | None = None
    pipeline_tag: str | None = None
    datasets: tuple[str, ...] = ()
    dataset_args: tuple[str, ...] = ()


def as_tuple(value: str | list[str] | None) -> tuple[str, ...]:
    """One or several names, as Trainer takes them.

    Args:
        value: A name, names or None.

    Returns:
        All of them.
    """
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def trainer_card(trainer: Trainer, teacher: AnyTeacher | None, logit_loss: Method, facts: CardFacts) -> str:
    """Write the card.

    Args:
        trainer: The run.
        teacher: Its teacher, if it has one.
        logit_loss: What compares the logits.
        facts: What the caller knows; it goes before what the report says.

    Returns:
        The text of README.md.
    """
    report = Path(str(trainer.args.output_dir)) / REPORT
    if report.is_file():
        return _from_report(ShrinkReport.from_json(report), trainer.hub_model_id, facts)
    return _from_log(trainer, teacher, logit_loss, facts)


def _from_report(report: ShrinkReport, repo_id: str | None, facts: CardFacts) -> str:
    known: dict[str, Any] = {
        "language": facts.language,
        "license": facts.license,
        "base_model": facts.base_model,
        "pipeline_tag": facts.pipeline_tag,
        "datasets": facts.datasets,
    }
    origin = replace(report.provenance, **{name: value for name, value in known.items() if value})
    return model_card(replace(report, provenance=origin), repo_id=repo_id, tags=facts.tags)


def _from_log(trainer: Trainer, teacher: AnyTeacher | None, logit_loss: Method, facts: CardFacts) -> str:
    args: Any = trainer.args
    student = trainer.accelerator.unwrap_model(trainer.model)
    hyperparameters = {name: _plain(getattr(args, name)) for name in TRAINING}
    within = _feature_losses(args) if teacher is not None else {}
    if teacher is not None:
        hyperparameters |= {"logit_loss": logit_loss.name, "alpha": args.alpha, **args.loss_options}
    for weight, loss in within.items():
        hyperparameters |= {weight: getattr(args, weight), weight.replace("_weight", "_loss"): loss.name}
    if within:
        hyperparameters |= {"layer_map": args.layer_map, "pooling": args.pooling}
    if facts.dataset_args:
        hyperparameters["dataset_args"] = ", ".join(facts.dataset_args)
    name = facts.model_name or Path(str(args.output_dir)).name
    return training_card(
        name,
        teacher_model=None if teacher is None else teacher.name,
        task=find_task(student, args.task),
        hyperparameters=hyperparameters,
        metrics=_last_evaluation(trainer.state.log_history),
        datasets=facts.datasets,
        base_model=facts.base_model or _hub_origin(student),
        license=facts.license,
        language=facts.language,
        tags=facts.tags,
        methods=_methods([logit_loss, *within.values()] if teacher is not None else []),
        pipeline_tag=facts.pipeline_tag,
        library_name="transformers" if inner_model(student) is student else "peft",
        repo_id=trainer.hub_model_id,
    )


def _feature_losses(args: Any) -> dict[str, Method]:
    """Losses within the layers that took part, by the argument that weighs them."""
    weights = {argument: argument.replace("_loss", "_weight") for argument in FEATURE_LOSSES}
    return {w: LOSSES[getattr(args, argument)] for argument, w in weights.items() if getattr(args, w)}


def _methods(losses: list[Method]) -> tuple[MethodUse, ...]:
    return tuple(MethodUse(loss.name, "Knowledge distillation", loss.paper) for loss in losses)


def _last_evaluation(history: list[dict[str, float]]) -> Mapping[str, float]:
    for entry in reversed(history):
        if metrics := {name: value for name, value in entry.items() if name.startswith("eval_")}:
            return metrics
    return {}


def _hub_origin(student: Any) -> str | None:
    """Hub id that the student was loaded from; a folder would lead readers of the card nowhere."""
    config = model_config(student)
    name = "" if config is None else config.name_or_path
    return name if name and not looks_like_path(name) else None


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)  # the arguments hold enums
