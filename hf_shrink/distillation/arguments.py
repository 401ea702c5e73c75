"""Arguments of the distillation trainer."""

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from hf_shrink.distillation.losses import LOSSES
from hf_shrink.errors import ShrinkError


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
    disable_dropout: bool = field(default=False, metadata={"help": "Train the student without dropout."})
    teacher_model_init_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Keyword arguments (JSON) for from_pretrained, where the teacher is given by name."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
        own = sorted(set(LOSSES[self.logit_loss].options) - {"labels", "temperature", "beta"})
        if unknown := sorted(set(self.logit_loss_kwargs or {}) - set(own)):
            raise ShrinkError(
                f"`logit_loss_kwargs` must hold options of {self.logit_loss} ({own}), got {unknown[0]!r}. "
                "The temperature and beta are arguments of their own."
            )

    @property
    def loss_options(self) -> dict[str, Any]:
        """All keyword arguments of the teacher loss but the labels."""
        given: Any = self.logit_loss_kwargs or {}
        beta = {"beta": self.beta} if "beta" in LOSSES[self.logit_loss].options else {}
        return {"temperature": self.temperature, **beta, **given}
