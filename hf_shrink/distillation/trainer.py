"""`transformers.Trainer` with a teacher."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_shrink.distillation.alignment import align_classes, check_vocabularies
from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.distillation.losses import LOSSES
from hf_shrink.distillation.teacher import Teacher, forward_parameters
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.quality import as_compute_metrics
from hf_shrink.inputs.labels import check_labels
from hf_shrink.inputs.models import load_model, load_processing_class
from hf_shrink.inputs.tasks import find_task, model_config

IGNORED = -100  # the label of a row or token that the label term leaves out, as everywhere in transformers
TEACHER, LABELS = 0, 1  # what is counted in a batch: rows for the teacher, labelled rows


class DistillationTrainer(Trainer):
    """Train a student on labels and on a teacher's outputs (Hinton et al., 2015).

    It takes what `transformers.Trainer` takes. The gradient of an optimizer step is the same however its rows are
    spread over accumulated batches and processes: every term is a sum over positions, divided by their number in the
    whole step. `teacher_model=None` trains as `Trainer` does.

    Args:
        model: The student, or a folder or Hub id.
        teacher_model: The teacher, or a folder or Hub id; it is frozen and never saved.
        args: The training arguments.
        compute_metrics: As in `Trainer`; also a name in `METRICS` or an `evaluate.EvaluationModule`.
        **kwargs: Any other argument of `transformers.Trainer`.

    Raises:
        ShrinkError: If teacher and student do not share labels and vocabulary, if labels lie outside the range, or if
            the task is not single-label classification.
    """

    _tag_names = ("hf-shrink", "distillation")

    def __init__(
        self,
        model: PreTrainedModel | str | Path | None = None,
        teacher_model: PreTrainedModel | str | Path | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        compute_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else DistillationTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, DistillationTrainingArguments):
            raise ShrinkError(
                f"`args` must be DistillationTrainingArguments, got {type(args).__name__}. "
                "They take every field of TrainingArguments: change the class name."
            )
        if isinstance(model, (str, Path)):
            model = load_model(model)
        self.teacher = self._make_teacher(model, teacher_model, args, kwargs.get("processing_class"))
        self._logit_loss = LOSSES.resolve(args.logit_loss)
        self._terms: dict[str, Tensor] = {}  # sums since the last log, on the device: a log is the only host sync
        self._term_steps = 0
        self._evaluation: dict[str, Tensor] = {}
        if compute_metrics is not None:
            compute_metrics = as_compute_metrics(compute_metrics, task=find_task(model))
        super().__init__(model=model, args=args, compute_metrics=compute_metrics, **kwargs)
        self._student_parameters = forward_parameters(self.model)
        for dataset in (self.train_dataset, self.eval_dataset):
            _check_dataset(dataset, model_config(self.model).num_labels)
        # The loss is divided by the size of the whole step here: Trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        if self.teacher is not None:
            self.teacher.place(self.accelerator)

    @staticmethod
    def _make_teacher(
        model: nn.Module, teacher_model: Any, args: DistillationTrainingArguments, tokenizer: Any
    ) -> Teacher | None:
        task = find_task(model)
        if task != "single_label_classification":
            raise ShrinkError(
                f"`model` must be a single-label classifier, got one for {task}. Other tasks are not distilled yet."
            )
        if teacher_model is None:
            return None
        teacher_tokenizer = None
        if isinstance(teacher_model, (str, Path)):
            teacher_tokenizer = load_processing_class(teacher_model)
            teacher_model = load_model(teacher_model, **(args.teacher_model_init_kwargs or {}))
        if teacher_model is model:
            raise ShrinkError("`teacher_model` must be another object than `model`. Copy it first: make_student() does.")
        if find_task(teacher_model) != task:
            raise ShrinkError(
                f"`teacher_model` must be a single-label classifier as the student is, got one for "
                f"{find_task(teacher_model)}. Fine-tune it on this task first."
            )
        student_config, teacher_config = model_config(model), model_config(teacher_model)
        check_vocabularies(student_config, teacher_config, _tokenizer(tokenizer), _tokenizer(teacher_tokenizer))
        return Teacher(teacher_model, align_classes(student_config, teacher_config))

    # ------------------------------------------------------------------ the loss
    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Take the batches of one optimizer step, and count what the loss is averaged over.

        Args:
            epoch_iterator: Batches of the epoch.
            num_batches: How many the step accumulates.
            device: Where the counts go.

        Returns:
            The batches, and counts of shape (2,): rows, and rows with a label, over all processes.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(2, dtype=torch.long, device=device)
        for batch in batches:
            counts += _count(batch).to(device)
        if self._averages_across_devices():
            counts = self.accelerator.reduce(counts, reduction="sum")
        return batches, counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Weigh the teacher term against the label term.

        Args:
            model: The student as the Trainer wrapped it.
            inputs: A prepared batch; rows whose label is -100 learn from the teacher alone.
            return_outputs: Whether the student's outputs are wanted too.
            num_items_in_batch: The counts of `get_batch_samples`; in evaluation the batch's own counts are used.

        Returns:
            The loss, a scalar, or the loss with the outputs.
        """
        labels = inputs.get("labels")
        own = {k: v for k, v in inputs.items() if k in self._student_parameters and k != "labels"}
        outputs = model(**own)
        counts = num_items_in_batch if model.training else _count(inputs).to(outputs.logits.device)
        terms = self._loss_terms(outputs.logits, labels, inputs, counts)
        alpha = self.args.alpha if labels is not None else 1.0
        weights = {"kd_loss": alpha, "ce_loss": 1 - alpha} if self.teacher is not None else {"ce_loss": 1.0}
        loss = sum(weights[name] * term for name, term in terms.items())
        if model.training:
            self._remember(terms)
            if self._averages_across_devices():
                loss = loss * self.accelerator.num_processes  # DDP averages gradients: undo it, the counts are global
        return (loss, outputs) if return_outputs else loss

    def _loss_terms(
        self, logits: Tensor, labels: Tensor | None, inputs: Mapping[str, Any], counts: Tensor
    ) -> dict[str, Tensor]:
        """Each term summed over this batch's rows and divided by the counts of the step."""
        terms = {}
        if self.teacher is not None:
            with self.accelerator.autocast():
                teacher_logits = self.teacher(inputs)
            divergence = self._logit_loss(logits, teacher_logits, labels=labels, temperature=self.args.temperature)
            terms["kd_loss"] = divergence.sum() / counts[TEACHER]
        if labels is not None:
            terms["ce_loss"] = self._label_loss(logits, labels, counts[LABELS])
        if not self.model.training:
            self._tally(terms, logits, teacher_logits if self.teacher is not None else None, counts)
        return terms

    def _label_loss(self, logits: Tensor, labels: Tensor, count: Tensor) -> Tensor:
        if self.compute_loss_func is not None:
            return self.compute_loss_func({"logits": logits}, labels, num_items_in_batch=count)
        smoothing = self.args.label_smoothing_factor
        total = F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
        return total / count.clamp(min=1)  # a step without any label adds 0, not NaN

    def _averages_across_devices(self) -> bool:
        return self.args.average_tokens_across_devices and self.accelerator.num_processes > 1

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.teacher is not None:  # a teacher may read columns that its student does not, such as token_type_ids
            own = set(self._signature_columns)
            self._signature_columns += sorted(self.teacher.parameters - own)

    # ------------------------------------------------------------------ what is logged
    def _remember(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            term = term.detach()
            self._terms[name] = self._terms[name] + term if name in self._terms else term
        self._term_steps += int(self.accelerator.sync_gradients)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the loss terms, averaged over the steps since the last log, to what Trainer logs.

        Args:
            logs: What Trainer logs.
            *args: Handed on.
            **kwargs: Handed on.
        """
        if "loss" in logs and self._term_steps:
            processes = self.accelerator.num_processes if self._averages_across_devices() else 1
            for name, total in self._terms.items():
                mean = self.accelerator.gather(total).mean() * processes  # each process holds its share of the mean
                logs[name] = mean.item() / self._term_steps
            self._terms, self._term_steps = {}, 0
        super().log(logs, *args, **kwargs)

    def _tally(self, terms: dict[str, Tensor], logits: Tensor, teacher_logits: Tensor | None, counts: Tensor) -> None:
        sums = {"rows": counts[TEACHER], "labelled": counts[LABELS]}
        if "ce_loss" in terms:
            sums["ce_loss"] = terms["ce_loss"] * counts[LABELS]
        if teacher_logits is not None:
            sums["kd_loss"] = terms["kd_loss"] * counts[TEACHER]
            sums["agreement"] = (logits.argmax(-1) == teacher_logits.argmax(-1)).sum()
        for name, value in sums.items():
            value = value.detach().double()
            self._evaluation[name] = self._evaluation[name] + value if name in self._evaluation else value

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as Trainer does, and report the loss terms and the agreement with the teacher.

        Args:
            *args: Handed on.
            metric_key_prefix: Begins the name of each metric.
            **kwargs: Handed on.

        Returns:
            Trainer's output; its metrics hold `eval_ce_loss` and, with a teacher, `eval_kd_loss` and `eval_agreement`
            (share of rows with equal argmax).
        """
        self._evaluation = {}
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = {name: self.accelerator.reduce(v, reduction="sum").item() for name, v in self._evaluation.items()}
        for name, per in (("kd_loss", "rows"), ("ce_loss", "labelled"), ("agreement", "rows")):
            if name in sums and sums[per]:
                output.metrics[f"{metric_key_prefix}_{name}"] = sums[name] / sums[per]
        return output


def _count(batch: Mapping[str, Any]) -> Tensor:
    """Rows, and rows with a label, of one batch; shape (2,)."""
    labels = batch.get("labels")
    if labels is not None:
        return torch.stack([torch.tensor(len(labels), device=labels.device), (labels != IGNORED).sum()])
    return torch.tensor([len(next(v for v in batch.values() if isinstance(v, Tensor))), 0])


def _check_dataset(dataset: Any, num_labels: int) -> None:
    named = dataset.values() if isinstance(dataset, Mapping) else [dataset]
    for rows in named:
        check_labels(rows, "labels", num_labels)


def _tokenizer(processing_class: Any) -> PreTrainedTokenizerBase | None:
    return processing_class if isinstance(processing_class, PreTrainedTokenizerBase) else None
