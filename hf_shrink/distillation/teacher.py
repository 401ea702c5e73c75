"""The teacher beside a Trainer: loaded, frozen, placed, and asked for what the student is to match."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hf_shrink.distillation.alignment import align_classes, check_vocabularies
from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model, load_processing_class
from hf_shrink.inputs.tasks import find_task, inner_model, model_config

TASK = "single_label_classification"


class Teacher:
    """A frozen model in evaluation mode.

    Args:
        model: The teacher; its parameters stop requiring gradients.
        index: Order of its classes as the student has them, shape (C,), or None.
    """

    def __init__(self, model: nn.Module, index: torch.Tensor | None = None) -> None:
        self.model = model.requires_grad_(False).eval()
        self.parameters = forward_parameters(model)
        self.index = index

    def place(self, accelerator: Accelerator) -> None:
        """Put the teacher where the Trainer computes.

        Args:
            accelerator: The Trainer's own.
        """
        self.model = accelerator.prepare_model(self.model, evaluation_mode=True)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Run the teacher.

        Args:
            inputs: A prepared batch; what the teacher's `forward` does not know is left out.

        Returns:
            Logits of shape (..., C) in the student's class order.
        """
        known = {key: value for key, value in inputs.items() if key in self.parameters and key != "labels"}
        logits = self.model(**known).logits
        if self.index is not None:
            self.index = self.index.to(logits.device)
            logits = logits[..., self.index]
        return logits


def make_teacher(
    student: nn.Module,
    teacher_model: nn.Module | str | Path | None,
    args: DistillationTrainingArguments,
    processing_class: Any,
) -> Teacher | None:
    """Load a teacher and hold it against its student.

    Args:
        student: The model that will be trained.
        teacher_model: The teacher, a folder, a Hub id, or None.
        args: For `teacher_model_init_kwargs`.
        processing_class: What made the inputs, where it is known.

    Returns:
        The teacher, or None where there is none.

    Raises:
        ShrinkError: If the two do not share task, labels and vocabulary.
    """
    if teacher_model is None:
        return None
    given = isinstance(teacher_model, nn.Module)
    init_kwargs: Any = args.teacher_model_init_kwargs or {}
    tokenizer = None if given else load_processing_class(teacher_model)
    teacher: nn.Module = load_model(teacher_model, **({} if given else init_kwargs))
    if teacher is student:
        raise ShrinkError("`teacher_model` must be another object than `model`. Copy it first: make_student() does.")
    if find_task(teacher) != TASK:
        raise ShrinkError(
            f"`teacher_model` must be a single-label classifier as the student is, got one for "
            f"{find_task(teacher)}. Fine-tune it on this task first."
        )
    student_config, teacher_config = config_of(student, "model"), config_of(teacher, "teacher_model")
    check_vocabularies(student_config, teacher_config, _tokenizer(processing_class), _tokenizer(tokenizer))
    return Teacher(teacher, align_classes(student_config, teacher_config))


def config_of(model: nn.Module, argument: str) -> PretrainedConfig:
    """The transformers config of a model.

    Args:
        model: Any module.
        argument: What the user calls it.

    Returns:
        Its config.

    Raises:
        ShrinkError: If it has none.
    """
    config = model_config(model)
    if config is None:
        raise ShrinkError(
            f"`{argument}` must be a transformers model, got {type(model).__name__}. "
            "Wrap it in a PreTrainedModel, or give a folder or a Hub id."
        )
    return config


def forward_parameters(model: nn.Module) -> frozenset[str]:
    """Names that a model's `forward` takes, without `**kwargs`."""
    parameters = inspect.signature(inner_model(model).forward).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD)


def _tokenizer(processing_class: Any) -> PreTrainedTokenizerBase | None:
    return processing_class if isinstance(processing_class, PreTrainedTokenizerBase) else None
