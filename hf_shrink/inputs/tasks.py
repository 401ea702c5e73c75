"""What a model is for: its task, found from its head."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_shrink.errors import ShrinkError

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: What users write and reports show.
        pipeline_tag: The Hub's name for it.
        auto_class: Name of the class in transformers that loads models for it.
        head_suffixes: How the names of its model classes end; the longest ending of all tasks decides.
    """

    name: str
    pipeline_tag: str
    auto_class: str
    head_suffixes: tuple[str, ...]


SEQUENCE_HEADS = ("ForSequenceClassification",)
AUDIO_HEADS = (  # speech encoders name their heads as text models do
    "ForAudioClassification",
    "Data2VecAudioForSequenceClassification",
    "HubertForSequenceClassification",
    "SEWForSequenceClassification",
    "SEWDForSequenceClassification",
    "UniSpeechForSequenceClassification",
    "UniSpeechSatForSequenceClassification",
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2ConformerForSequenceClassification",
    "WavLMForSequenceClassification",
)
NO_TASK = ("PreTrainedModel", "DoubleHeadsModel")  # end as a headless model does, and are none

_ROWS = (
    ("single_label_classification", "text-classification", "AutoModelForSequenceClassification", SEQUENCE_HEADS),
    ("multi_label_classification", "text-classification", "AutoModelForSequenceClassification", SEQUENCE_HEADS),
    ("regression", "text-classification", "AutoModelForSequenceClassification", SEQUENCE_HEADS),
    ("token_classification", "token-classification", "AutoModelForTokenClassification", ("ForTokenClassification",)),
    (
        "question_answering",
        "question-answering",
        "AutoModelForQuestionAnswering",
        ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
    ),
    ("masked_lm", "fill-mask", "AutoModelForMaskedLM", ("ForMaskedLM", "WithLMHeadModel")),
    ("causal_lm", "text-generation", "AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
    (
        "seq2seq_lm",
        "text2text-generation",
        "AutoModelForSeq2SeqLM",
        ("ForConditionalGeneration", "EncoderDecoderModel"),
    ),
    (
        "image_classification",
        "image-classification",
        "AutoModelForImageClassification",
        ("ForImageClassification", "ForImageClassificationWithTeacher"),
    ),
    ("audio_classification", "audio-classification", "AutoModelForAudioClassification", AUDIO_HEADS),
    ("feature_extraction", "feature-extraction", "AutoModel", ("Model",)),
)
TASKS: Mapping[str, Task] = MappingProxyType({row[0]: Task(*row) for row in _ROWS})


def find_task(model: Any, task: str | None = None) -> str:
    """Find what a model is for.

    Args:
        model: A model, anything with a transformers `.config`, or such a config.
        task: Name of the task where it is known; it is checked and wins.

    Returns:
        A name in `TASKS`. Sequence classifiers are told apart by `problem_type`, and without it one label is a
        regression and several are single-label.

    Raises:
        ShrinkError: If the task is unknown, or the head does not tell it.
    """
    if task is not None:
        return check_task(task)
    config = model if isinstance(model, PretrainedConfig) else model_config(model)
    names = list(_class_names(model, config))
    for name in names:
        found = _task_of(name)
        if found in PROBLEM_TYPES and config is not None:
            return _classification_task(config)
        if found == "seq2seq_lm" and config is not None and not config.is_encoder_decoder:
            continue  # multimodal decoders bear the same ending, and generate otherwise
        if found is not None:
            return found
    raise ShrinkError(
        f"`task` must be given for this model, because its class tells none: {', '.join(names) or 'no class name'}. "
        f"Choose one of {sorted(TASKS)}."
    )


def check_task(task: str) -> str:
    """Refuse a task that does not exist.

    Args:
        task: A name.

    Returns:
        The same name.

    Raises:
        ShrinkError: If `TASKS` lacks it.
    """
    if task not in TASKS:
        raise ShrinkError(f"`task` must be one of {sorted(TASKS)}, got {task!r}. Choose the one that fits the labels.")
    return task


def inner_model(model: nn.Module) -> nn.Module:
    """The model within a PEFT adapter, whose own class says nothing of the task.

    Args:
        model: Any module.

    Returns:
        The wrapped model, or the module itself.
    """
    if "peft" in sys.modules:  # an adapter exists only where its library is loaded; the import takes seconds
        from peft import PeftModel

        if isinstance(model, PeftModel):
            return model.get_base_model()
    return model


def model_config(model: Any) -> PretrainedConfig | None:
    """The transformers config of a model.

    Args:
        model: A module, or anything that stands in for one, such as `OnnxModel`.

    Returns:
        Its config, or None where it has no such thing.
    """
    inner = inner_model(model) if isinstance(model, nn.Module) else model
    config = getattr(inner, "config", None)  # stand-ins share no class
    return config if isinstance(config, PretrainedConfig) else None


def _class_names(model: Any, config: PretrainedConfig | None) -> Iterator[str]:
    if isinstance(model, nn.Module):
        for parent in type(inner_model(model)).__mro__:  # a user's subclass of a stock class is found by its parent
            if parent in (PreTrainedModel, nn.Module):
                return
            yield parent.__name__
    elif config is not None:
        yield from config.architectures or ()


def _task_of(class_name: str) -> str | None:
    endings: dict[str, str | None] = {
        suffix: name for name, task in reversed(list(TASKS.items())) for suffix in task.head_suffixes
    }
    endings |= dict.fromkeys(NO_TASK)
    found = max((suffix for suffix in endings if class_name.endswith(suffix)), key=len, default=None)
    return None if found is None else endings[found]


def _classification_task(config: PretrainedConfig) -> str:
    if config.problem_type is not None:
        return check_task(config.problem_type)
    return "regression" if config.num_labels == 1 else "single_label_classification"
