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
        disable_dropout: Train the student without dropout. A teacher's answers are a target that a small student does
            not overfit, and dropout blurs what it is to match: see `benchmarks/results/quickstart.json`.
        teacher_model_init_kwargs: Keyword arguments for `from_pretrained` where `teacher_model` is a name, as a
            dictionary or JSON text.
    """

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "teacher_model_init_kwargs"]

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
        LOSSES[self.logit_loss]  # an unknown name raises with the known ones
