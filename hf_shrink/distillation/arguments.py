"""Arguments of the distillation trainer."""

from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.pooling import POOLINGS
from hf_shrink.inputs.tasks import check_task

FEATURE_LOSSES = {"hidden_loss": "hidden", "attention_loss": "attention", "relation_loss": "relations"}


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with what a teacher adds.

    The loss is `alpha * teacher_term + (1 - alpha) * label_term`, both averaged over the positions of the whole
    optimizer step: over all accumulated batches and all processes.

    Args:
        temperature: Above 0; divides the logits of both models in the teacher term.
        alpha: Weight of the teacher term, in [0, 1]; rows without labels count it as 1.
        logit_loss: Name in `LOSSES`.
        logit_loss_kwargs: Options of that loss beside the temperature, as a dictionary or JSON text.
        beta: Option of `jsd`, in [0, 1]: 0 is the forward, 1 the reverse divergence.
        hidden_weight: Weight of the term on hidden states, at least 0; 0 leaves it out.
        hidden_loss: Name in `LOSSES` of a loss on hidden states.
        attention_weight: Weight of the term on attention, at least 0; 0 leaves it out. It needs equally many heads,
            and models without rotary or relative positions.
        attention_loss: Name in `LOSSES` of a loss on attention, "attention_kl" or "attention_mse".
        relation_weight: Weight of the term on relations among queries, keys and values, at least 0; 0 leaves it out.
            Widths and heads may differ: both are split into as many relation heads as the student has heads if that
            divides all widths, else into the greatest number that divides all numbers of heads.
        relation_loss: Name in `LOSSES` of a loss on relations.
        layer_map: Which layer of the student is held against which of the teacher: "uniform" over the depth, "last"
            against last, "skip" (all but the last, against every k-th), or pairs such as "0:0,1:2", counted from 0. It
            holds for hidden states, attention and relations; MiniLM compares the last layers alone.
        preset: Name in `PRESETS`: settings that were measured together. They take the place of defaults; a field that
            is given another value than its default keeps it.
        task: Name in `TASKS`; found from the student if None.
        pooling: One vector a row in place of one a token, "mean", "cls", "last" or "max": for embeddings, where None
            takes what the model's sentence-transformers settings say, and for the hidden states, where None compares
            token by token.
        disable_dropout: Train the student without dropout, which blurs what it is to match: 0.6 points over 3
            seeds in `benchmarks/results/student_dropout.json`.
        teacher_model_init_kwargs: Keyword arguments for `from_pretrained` where `teacher_model` is a name, as a
            dictionary or JSON text.
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "teacher_model_init_kwargs", "logit_loss_kwargs"]

    temperature: float = field(
        default=2.0, metadata={"help": "Divides the logits of both models in the teacher term; above 0."}
    )
    alpha: float = field(
        default=0.5,
        metadata={
            "help": "Weight of the teacher term, 0 to 1; the labels get the rest. Without labels it counts as 1."
        },
    )
    logit_loss: str = field(default="forward_kl", metadata={"help": "Teacher loss on the logits: a name in LOSSES."})
    logit_loss_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options (JSON) of the teacher loss beside the temperature."}
    )
    beta: float = field(default=0.5, metadata={"help": "Of jsd, 0 to 1: 0 is the forward, 1 the reverse divergence."})
    hidden_weight: float = field(
        default=0.0, metadata={"help": "Weight of the term on hidden states, at least 0; 0 leaves it out."}
    )
    hidden_loss: str = field(default="hidden_mse", metadata={"help": "Loss on hidden states: a name in LOSSES."})
    attention_weight: float = field(
        default=0.0, metadata={"help": "Weight of the term on attention, at least 0; 0 leaves it out."}
    )
    attention_loss: str = field(
        default="attention_kl", metadata={"help": "Loss on attention: attention_kl or attention_mse."}
    )
    relation_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the term on relations of queries, keys, values, at least 0; 0 leaves it out."},
    )
    relation_loss: str = field(default="minilm_relation", metadata={"help": "Loss on relations: a name in LOSSES."})
    layer_map: str = field(
        default="uniform",
        metadata={"help": 'Layers to compare: "uniform", "last", "skip", or pairs (student:teacher) such as 0:0,1:2.'},
    )
    preset: str | None = field(
        default=None, metadata={"help": "Settings measured together, in place of the defaults: classification."}
    )
    task: str | None = field(
        default=None, metadata={"help": "What the model is for; found from its head if left out."}
    )
    pooling: str | None = field(
        default=None,
        metadata={
            "help": "One vector a row from its tokens: mean, cls, last or max; for embeddings and hidden states."
        },
    )
    disable_dropout: bool = field(default=False, metadata={"help": "Train the student without dropout."})
    teacher_model_init_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Keyword arguments (JSON) for from_pretrained, where the teacher is given by name."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fill_in_preset()
        # Each rule is written so that NaN, which compares false with everything, breaks it.
        if not self.temperature > 0 or self.temperature == float("inf"):
            raise ShrinkError(f"`temperature` must be a finite number above 0, got {self.temperature}. Start with 2.")
        if not 0 <= self.alpha <= 1:
            raise ShrinkError(
                f"`alpha` must be in [0, 1], got {self.alpha}. 0 trains on labels alone, 1 on the teacher alone."
            )
        if not 0 <= self.beta <= 1:
            raise ShrinkError(
                f"`beta` must be in [0, 1], got {self.beta}. 0 is the forward, 1 the reverse divergence."
            )
        for name in ("hidden_weight", "attention_weight", "relation_weight"):
            if not 0 <= (weight := getattr(self, name)) < float("inf"):
                raise ShrinkError(
                    f"`{name}` must be a finite number of at least 0, got {weight}. 0 leaves its term out."
                )
        self._check_names()
        own = sorted(set(LOSSES[self.logit_loss].options) - {"labels", "temperature", "beta"})
        if unknown := sorted(set(self.logit_loss_kwargs or {}) - set(own)):
            raise ShrinkError(
                f"`logit_loss_kwargs` must hold options of {self.logit_loss} ({own}), got {unknown[0]!r}. "
                "The temperature and beta are arguments of their own."
            )

    def _fill_in_preset(self) -> None:
        if self.preset is None:
            return
        if self.preset not in PRESETS:
            raise ShrinkError(f"`preset` must be one of {sorted(PRESETS)}, got {self.preset!r}. Choose one of these.")
        defaults = {f.name: f.default for f in fields(self)}
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) == defaults[name]:
                setattr(self, name, value)

    def _check_names(self) -> None:
        if self.task is not None:
            check_task(self.task)
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise ShrinkError(
                f"`pooling` must be one of {sorted(POOLINGS)}, got {self.pooling!r}. Choose one of these."
            )
        for argument, outputs in FEATURE_LOSSES.items():
            fitting = [name for name, loss in LOSSES.items() if outputs in loss.facts["outputs"]]
            if (chosen := getattr(self, argument)) not in fitting:
                raise ShrinkError(f"`{argument}` must be one of {fitting}, got {chosen!r}. Choose one of these.")

    @property
    def loss_options(self) -> dict[str, Any]:
        """All keyword arguments of the teacher loss but the labels."""
        given: Any = self.logit_loss_kwargs or {}
        beta = {"beta": self.beta} if "beta" in LOSSES[self.logit_loss].options else {}
        return {"temperature": self.temperature, **beta, **given}
