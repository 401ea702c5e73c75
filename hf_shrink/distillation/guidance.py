"""What a teacher brings to a run: the teacher itself, how its task is read, and the losses that compare the two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_shrink.distillation.alignment import align_classes, check_vocabularies
from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.features import ON_ATTENTION, Features, make_features
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.soft_labels import TASKS as SOFT_TASKS
from hf_shrink.distillation.soft_labels import SoftLabels
from hf_shrink.distillation.teacher import Taught, Teacher, config_of, load_teacher, tokenizer_in
from hf_shrink.distillation.token_packing import VOCABULARY_TASKS
from hf_shrink.distillation.views import Reading, View, view_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.encoding import SOFT_LABEL
from hf_shrink.inputs.pooling import pooling_of
from hf_shrink.inputs.tasks import find_task
from hf_shrink.registry import Method

NAMED_CLASSES = (  # tasks whose outputs bear the names of `id2label`
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "token_classification",
    "image_classification",
    "audio_classification",
)
# What stands in for forward KL, the default, where the outputs are no softmax.
STANDS_IN = {"labels": "binary_kl", "values": "regression_mse", "features": "cosine"}


@dataclass(frozen=True)
class Guidance:
    """What the trainer asks of a teacher.

    Args:
        view: How the task is read.
        teacher: A model or what one said before, in a cache or in the rows; None trains on labels alone.
        logit_loss: Compares the scores.
        features: Compares the two within their layers.
    """

    view: View
    teacher: Teacher | TeacherCache | SoftLabels | None
    logit_loss: Method
    features: Features = field(default_factory=Features)

    def compare(self, scores: Tensor, taught: Taught, reading: Reading, options: Mapping[str, Any]) -> Tensor:
        """Run the loss on the scores.

        Args:
            scores: The student's, shape (..., C).
            taught: What the teacher says.
            reading: The batch.
            options: Keyword arguments of the loss.

        Returns:
            One value a position, shape (...).
        """
        theirs = taught.scores
        if self.view.task in VOCABULARY_TASKS:  # past the shorter vocabulary there is padding alone
            width = min(scores.shape[-1], theirs.shape[-1])
            scores, theirs = scores[..., :width], theirs[..., :width]
        labels = reading.labels if self.view.outputs in ("classes", "spans") else None
        return self.logit_loss.function(scores, theirs, labels=labels, **options)


def make_guidance(
    student: nn.Module,
    teacher_model: nn.Module | TeacherCache | str | Path | None,
    args: DistillationTrainingArguments,
    processing_class: Any,
    *,
    soft_labels: bool = False,
) -> Guidance:
    """Load a teacher, hold it against its student, and choose what compares them.

    Args:
        student: The model that will be trained.
        teacher_model: The teacher, its cache, a folder, a Hub id, or None.
        args: The training arguments.
        processing_class: What made the inputs, where it is known.
        soft_labels: Whether the rows say what a teacher would.

    Returns:
        All that the trainer needs of its teacher.

    Raises:
        ShrinkError: If the two do not share task, labels and vocabulary, or an argument does not fit the task.
    """
    task = find_task(student, args.task)
    student_config = config_of(student, "model")
    pooling = args.pooling or (pooling_of(student_config.name_or_path) if task == "feature_extraction" else "mean")
    view = view_of(task, student_config, pooling=pooling, hide_padding=teacher_model is not None)
    if args.label_smoothing_factor and view.outputs != "classes":
        raise ShrinkError(
            f"`label_smoothing_factor` must be 0 for {task}, got {args.label_smoothing_factor}. Only the targets of a "
            "softmax over classes can be smoothed."
        )
    logit_loss = _logit_loss(args, view)
    if soft_labels:
        _check_soft(args, task, teacher_model)
        return Guidance(view, SoftLabels(len(student_config.id2label or {})), logit_loss)
    if teacher_model is None:
        return Guidance(view, None, logit_loss)
    if isinstance(teacher_model, TeacherCache):
        _check_cached(args)
        check_vocabularies(student_config, teacher_model.config, tokenizer_in(processing_class), None)
        index, features = _fit(student_config, teacher_model.config, view, args)
        cache = teacher_model.fitted(
            task=task,
            index=index,
            layers=features.hidden_layers,
            pooling=args.pooling,
            embedding_pooling=pooling if view.outputs == "features" else None,
            processing_class=processing_class,
            temperature=args.temperature,
        )
        return Guidance(view, cache, logit_loss, features)
    init_kwargs: Any = args.teacher_model_init_kwargs or {}
    model = load_teacher(
        student,
        teacher_model,
        task=task,
        same_head=args.task is None,
        init_kwargs=init_kwargs,
        processing_class=processing_class,
    )
    index, features = _fit(student_config, config_of(model, "teacher_model"), view, args)
    teacher = Teacher(model, view, index, features.hidden_layers, args.pooling, features.teacher)
    return Guidance(view, teacher, logit_loss, features)


def _check_cached(args: DistillationTrainingArguments) -> None:
    for name in ON_ATTENTION:
        if weight := getattr(args, name):
            raise ShrinkError(
                f"`{name}` must be 0 where `teacher_model` is a cache, got {weight}: it holds no queries, keys and "
                "values. Give the teacher itself, or compare hidden states."
            )


def _check_soft(args: DistillationTrainingArguments, task: str, teacher_model: Any) -> None:
    if teacher_model is not None:
        raise ShrinkError(
            f"`teacher_model` must be None where `train_dataset` has a column `{SOFT_LABEL}`: both say what the "
            "student is to match. Leave the teacher out, or remove the column to train with it."
        )
    if task not in SOFT_TASKS:
        raise ShrinkError(
            f"`{SOFT_LABEL}` must be a column of rows for one of {list(SOFT_TASKS)}, got a student for {task}. Remove "
            "the column, and give a `teacher_model`."
        )
    for name in ("hidden_weight", *ON_ATTENTION):
        if weight := getattr(args, name):
            raise ShrinkError(
                f"`{name}` must be 0 where `{SOFT_LABEL}` stands in for a teacher, got {weight}: it says nothing of "
                "what is within. Give a `teacher_model`, and remove the column."
            )


def _logit_loss(args: DistillationTrainingArguments, view: View) -> Method:
    name = STANDS_IN.get(view.outputs, args.logit_loss) if args.logit_loss == "forward_kl" else args.logit_loss
    method = LOSSES[name]
    fitting = [key for key, loss in LOSSES.items() if _fits(loss, view)]
    if name not in fitting:
        raise ShrinkError(
            f"`logit_loss` must be one of {fitting} for {view.task}, got {name!r}, which compares something else. "
            "Leave it out for the usual one."
        )
    return method


def _fits(loss: Method, view: View) -> bool:
    return view.outputs in loss.facts["outputs"] and (loss.facts["compares"] == "positions" or view.one_vector_a_row)


def _fit(
    student: PretrainedConfig, teacher: PretrainedConfig, view: View, args: DistillationTrainingArguments
) -> tuple[Tensor | None, Features]:
    """The order of the teacher's classes, and what compares the layers."""
    index = align_classes(student, teacher) if view.task in NAMED_CLASSES else None
    return index, make_features(student, teacher, args)
