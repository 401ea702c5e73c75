"""The teacher beside a Trainer: loaded, frozen, placed, and asked for what the student is to match."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from hf_shrink.distillation.alignment import check_vocabularies
from hf_shrink.distillation.attention_capture import AttentionCapture, Projected, watching
from hf_shrink.distillation.hidden import select_states
from hf_shrink.distillation.views import View, with_decoder_inputs
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model, load_processing_class, model_name
from hf_shrink.inputs.tasks import find_task, inner_model, model_config

LABEL_NAMES = ("labels", "start_positions", "end_positions")  # with these a model would compute a loss of its own


@dataclass(frozen=True)
class Taught:
    """What a teacher says about one batch.

    Args:
        scores: As the task's view gives them, in the student's class order; shape (..., C).
        hidden: States of the layers that were asked for, each of shape (B, T, D), or (B, D) if pooled.
        projected: Queries, keys and values of the layers that were asked for.
    """

    scores: Tensor
    hidden: tuple[Tensor, ...] = ()
    projected: tuple[Projected, ...] = ()


class Teacher:
    """A frozen model in evaluation mode.

    Args:
        model: The teacher; its parameters stop requiring gradients.
        view: How the task's outputs are read.
        index: Order of its classes as the student has them, shape (C,), or None.
        layers: Layers whose hidden states are wanted, counted from 0.
        pooling: How these states become one vector a row; None leaves those of all tokens.
        attention: Catches queries, keys and values; None where they are not wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        view: View,
        index: Tensor | None = None,
        layers: Sequence[int] = (),
        pooling: str | None = None,
        attention: AttentionCapture | None = None,
    ) -> None:
        self.model = self._unwrapped = model.requires_grad_(False).eval()
        self.parameters = forward_parameters(model)
        self.config = config_of(model, "teacher_model")
        self._view = view
        self._index = index
        self._layers = tuple(layers)
        self._pooling = pooling
        self._attention = attention

    @property
    def name(self) -> str:
        """What a card may call it."""
        return model_name(self._unwrapped)

    def place(self, accelerator: Accelerator) -> None:
        """Put the teacher where the Trainer computes.

        Args:
            accelerator: The Trainer's own.
        """
        self.model = accelerator.prepare_model(self.model, evaluation_mode=True)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Any], *, hidden: bool = False) -> Taught:
        """Run the teacher.

        Args:
            inputs: A prepared batch; what the teacher's `forward` does not know is left out.
            hidden: Whether what its layers hold is wanted too: their states, and their queries, keys and values.

        Returns:
            What the student is to match.
        """
        states_wanted = {"output_hidden_states": True} if hidden and self._layers else {}
        with watching(self._unwrapped, self._attention if hidden else None) as projected:
            outputs = self.model(**self.own_inputs(inputs), **states_wanted)
        scores = self._view.scores(outputs, inputs)
        if self._index is not None:
            self._index = self._index.to(scores.device)
            scores = scores[..., self._index]
        if not states_wanted:
            return Taught(scores, projected=tuple(projected))
        states = select_states(outputs.hidden_states, self._layers, inputs.get("attention_mask"), self._pooling)
        return Taught(scores, states, tuple(projected))

    def own_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What of a batch this teacher reads.

        Args:
            inputs: A batch.

        Returns:
            Arguments of its `forward`, without labels.
        """
        if self._view.task == "seq2seq_lm":
            inputs = with_decoder_inputs(inputs, self.config)
        return {name: value for name, value in inputs.items() if name in self.parameters and name not in LABEL_NAMES}


def load_teacher(
    student: nn.Module,
    teacher_model: nn.Module | str | Path,
    *,
    task: str,
    same_head: bool,
    init_kwargs: Mapping[str, Any],
    processing_class: Any,
) -> nn.Module:
    """Load a teacher and hold it against its student.

    Args:
        student: The model that will be trained.
        teacher_model: The teacher, a folder or a Hub id.
        task: What the student is for.
        same_head: Whether the teacher's own head must say so too.
        init_kwargs: For `from_pretrained`, where the teacher is given by name.
        processing_class: What made the inputs, where it is known.

    Returns:
        The teacher.

    Raises:
        ShrinkError: If the two do not share task and vocabulary.
    """
    given = isinstance(teacher_model, nn.Module)
    tokenizer = None if given else load_processing_class(teacher_model)
    teacher: nn.Module = load_model(teacher_model, **({} if given else init_kwargs))
    if teacher is student:
        raise ShrinkError("`teacher_model` must be another object than `model`. Copy it first: make_student() does.")
    if same_head and (theirs := find_task(teacher)) != task:
        raise ShrinkError(
            f"`teacher_model` must be a model for {task} as the student is, got one for {theirs}. "
            "Fine-tune it on this task first."
        )
    student_config, teacher_config = config_of(student, "model"), config_of(teacher, "teacher_model")
    check_vocabularies(student_config, teacher_config, tokenizer_in(processing_class), tokenizer_in(tokenizer))
    return teacher


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


def tokenizer_in(processing_class: Any) -> PreTrainedTokenizerBase | None:
    """What `check_vocabularies` can hold against a teacher, where there is something."""
    return processing_class if isinstance(processing_class, PreTrainedTokenizerBase) else None
