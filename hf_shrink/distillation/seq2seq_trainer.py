"""Distillation of encoder-decoders, with generation in evaluation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.distillation.trainer import DistillationTrainer


@dataclass
class Seq2SeqDistillationTrainingArguments(DistillationTrainingArguments, Seq2SeqTrainingArguments):
    """`DistillationTrainingArguments` with those of `transformers.Seq2SeqTrainingArguments`."""

    _VALID_DICT_FIELDS = [
        *Seq2SeqTrainingArguments._VALID_DICT_FIELDS,
        *DistillationTrainingArguments._VALID_DICT_FIELDS,
    ]


class Seq2SeqDistillationTrainer(DistillationTrainer, Seq2SeqTrainer):
    """`DistillationTrainer` on `transformers.Seq2SeqTrainer`: `predict_with_generate` in evaluation.

    The arguments are those of `DistillationTrainer`, and of `Seq2SeqTrainer`.
    """

    args: Seq2SeqDistillationTrainingArguments

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> Any:
        """Generate as Seq2SeqTrainer does, and hold the labels' tokens against the teacher.

        Args:
            model: The student.
            inputs: A batch.
            prediction_loss_only: Whether predictions are thrown away.
            ignore_keys: Outputs of the model to leave out.
            **gen_kwargs: For `generate`.

        Returns:
            Loss, generated tokens (without `predict_with_generate` logits) and labels.
        """
        if not self.args.predict_with_generate or prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        loss: Any
        loss, generated, labels = Seq2SeqTrainer.prediction_step(
            self, model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs
        )
        if labels is not None:  # Seq2SeqTrainer takes the model's own loss, which knows no teacher
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(model, self._prepare_inputs(inputs)).detach()
        return loss, generated, labels
