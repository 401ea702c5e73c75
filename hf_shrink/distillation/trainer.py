"""`transformers.Trainer` with a teacher."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_shrink.distillation.arguments import DistillationTrainingArguments
from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.dropout import disable_dropout
from hf_shrink.distillation.features import Features
from hf_shrink.distillation.guidance import NAMED_CLASSES, make_guidance
from hf_shrink.distillation.soft_labels import (
    SoftLabels,
    check_soft_labels,
    holds_soft_labels,
    missing_soft_labels,
    unread_soft_labels,
)
from hf_shrink.distillation.teacher import LABEL_NAMES, Taught, Teacher, config_of, forward_parameters
from hf_shrink.distillation.trainer_card import CardFacts, as_tuple, trainer_card
from hf_shrink.distillation.views import Reading, agreement, label_loss, with_decoder_inputs
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.quality import as_compute_metrics
from hf_shrink.inputs.encoding import SOFT_LABEL
from hf_shrink.inputs.labels import check_labels
from hf_shrink.inputs.models import load_model
from hf_shrink.inputs.row_ids import CARRIED
from hf_shrink.inputs.tasks import find_task
from hf_shrink.registry import Method

logger = logging.get_logger(__name__)
HEARD, LABELS, ROWS = range(3)  # what a Reading counts
PROJECTIONS = "distillation_projections.safetensors"  # beside the optimizer in a checkpoint


class DistillationTrainer(Trainer):
    """Train a student on labels and on a teacher's outputs (Hinton et al., 2015).

    It takes what `transformers.Trainer` takes. The gradient of an optimizer step is the same however its rows are
    spread over accumulated batches and processes: every term is a sum over positions, divided by their number in the
    whole step. `teacher_model=None` trains as `Trainer` does. The task is found from the student's head and
    `problem_type`, unless `args.task` names it.

    Args:
        model: The student, or a folder or Hub id.
        teacher_model: The teacher, or a folder or Hub id; it is frozen and never saved. Or what `cache_teacher` wrote:
            then there is no teacher in the loop, and evaluation compares with it only where its rows are cached too.
            None where the rows of `train_dataset` have a column `soft_label` that says what a teacher would, one score
            before the softmax for each of the student's outputs, as `attach_soft_labels` writes it.
        args: The training arguments.
        compute_metrics: As in `Trainer`; also a name in `METRICS` or an `evaluate.EvaluationModule`.
        peft_config: A `peft.PeftConfig`: adapters on the student are trained in place of its weights.
        **kwargs: Any other argument of `transformers.Trainer`.

    Raises:
        ShrinkError: If teacher and student do not share task, labels and vocabulary, if labels lie outside the range,
            or if a loss does not fit the task.
    """

    _tag_names: ClassVar[list[str]] = ["hf-shrink", "distillation"]
    args: DistillationTrainingArguments

    def __init__(
        self,
        model: nn.Module | str | Path | None = None,
        teacher_model: nn.Module | TeacherCache | str | Path | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        compute_metrics: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else DistillationTrainingArguments(output_dir="tmp_trainer")
        if not isinstance(args, DistillationTrainingArguments):
            raise ShrinkError(
                f"`args` must be DistillationTrainingArguments, got {type(args).__name__}. "
                "They take every field of TrainingArguments: change the class name."
            )
        student = _student(model, kwargs.get("model_init"))
        if compute_metrics is not None:
            compute_metrics = as_compute_metrics(compute_metrics, task=find_task(student, args.task))
        train, evaluation = kwargs.get("train_dataset"), kwargs.get("eval_dataset")
        alone = train is None and teacher_model is None  # to evaluate only
        soft = holds_soft_labels(evaluation if alone else train)
        self._guidance = make_guidance(student, teacher_model, args, kwargs.get("processing_class"), soft_labels=soft)
        if self._guidance.view.task in NAMED_CLASSES:
            for dataset in (train, evaluation):
                _check_labels(dataset, len(config_of(student, "model").id2label or {}), self.teacher)
        self._student_config = config_of(student, "model")
        self._student_parameters = forward_parameters(student)
        self._peft_config = peft_config
        self._terms: dict[str, Tensor] = {}  # sums since the last log, on the device: a log is the only host sync
        self._term_steps = 0
        self._evaluation: dict[str, Tensor] = {}
        super().__init__(
            model=None if model is None else _prepared(student, args, peft_config),
            args=args,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        # The loss is divided by the size of the whole step here: Trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        if self.teacher is not None:
            self.teacher.place(self.accelerator)
        if isinstance(self.teacher, TeacherCache):
            self.data_collator = self.teacher.collate(self.data_collator)
        self._projections.to(self.args.device)

    @property
    def teacher(self) -> Teacher | TeacherCache | SoftLabels | None:
        """The teacher, frozen, or what stands in for it: its cache, or soft labels in the rows; None without one."""
        return self._guidance.teacher

    @property
    def logit_loss(self) -> Method:
        """What compares the logits: the method of `args.logit_loss`, or what stands in for forward KL."""
        return self._guidance.logit_loss

    # ------------------------------------------------------------------ the student and what is trained with it
    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a student for a run of `model_init`.

        Args:
            trial: Of the hyperparameter search.

        Returns:
            The student.
        """
        for projection in self._projections:
            projection.reset_parameters()
        return _prepared(super().call_model_init(trial), self.args, self._peft_config)

    @property
    def _projections(self) -> Any:
        return self._guidance.features.projections

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimizer, and let it train the learned projections too.

        Args:
            *args: Handed on.
            **kwargs: Handed on.

        Returns:
            The optimizer.
        """
        optimizer = super().create_optimizer(*args, **kwargs)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        own = [parameter for projection in self._projections for parameter in projection.parameters()]
        if own and id(own[0]) not in known:
            optimizer.add_param_group({"params": own, "weight_decay": 0.0})
        return optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run one batch forward and backward, and share the projections' gradient among the processes.

        Args:
            *args: Handed on.
            **kwargs: Handed on.

        Returns:
            The loss of the batch.
        """
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients and self.accelerator.num_processes > 1:
            for projection in self._projections:  # beside the student, where DDP does not see them
                for parameter in projection.parameters():
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        return loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._projections and self.args.should_save:
            save_file(self._projections.state_dict(), Path(output_dir) / PROJECTIONS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if not self._projections or checkpoint is None:
            return
        sidecar = Path(checkpoint) / PROJECTIONS
        if not sidecar.is_file():
            raise ShrinkError(
                f"`resume_from_checkpoint` must hold {PROJECTIONS}, but {checkpoint} does not: it was saved with "
                "save_only_model, or without `hidden_weight`. Resume from another, or train from the student in it."
            )
        self._projections.load_state_dict(load_file(sidecar))

    # ------------------------------------------------------------------ the loss
    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Take the batches of one optimizer step, and count what the loss is averaged over.

        Args:
            epoch_iterator: Batches of the epoch.
            num_batches: How many the step accumulates.
            device: Where the counts go.

        Returns:
            The batches, and counts of shape (3,) over all processes: positions that hear the teacher, labels, rows.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.zeros(3, dtype=torch.long, device=device)
        for batch in batches:
            counts += self._guidance.view.read(batch).counts().to(device)
        if self._averages_across_devices():
            counts = self.accelerator.reduce(counts, reduction="sum")
        for projection in self._projections:
            projection.zero_grad()  # Trainer empties the gradients of its model alone
        return batches, counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Weigh the teacher's terms against the label term.

        Args:
            model: The student as the Trainer wrapped it.
            inputs: A prepared batch; positions whose label is -100 have no label.
            return_outputs: Whether the student's outputs are wanted too.
            num_items_in_batch: The counts of `get_batch_samples`; in evaluation the batch's own counts are used.

        Returns:
            The loss, a scalar, or the loss with the outputs.
        """
        reading = self._guidance.view.read(inputs)
        features = self._guidance.features if model.training else Features()
        with features.watch(self.accelerator.unwrap_model(model)) as projected:
            outputs = model(**self._own_inputs(inputs), **features.wanted)
        scores = self._guidance.view.scores(outputs, inputs)
        counts = num_items_in_batch if model.training else reading.counts().to(scores.device)
        taught = self._ask_teacher(inputs, hidden=bool(features), needed=model.training or reading.labels is None)
        terms = self._loss_terms(outputs, scores, taught, reading, counts)
        if features and taught is not None:
            by_row = features.terms(outputs, projected, taught, inputs.get("attention_mask"))
            terms |= {name: values.sum() / counts[ROWS] for name, values in by_row.items()}
        weights = self._weights(labelled=reading.labels is not None, taught=taught is not None)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if not model.training:
            self._tally(terms, scores, taught, reading, counts)
        else:
            self._remember(terms)
            if self._averages_across_devices():
                loss = loss * self.accelerator.num_processes  # DDP averages gradients: undo it, the counts are global
        return (loss, outputs) if return_outputs else loss

    def _own_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the student reads: no labels, or it would compute a loss of its own."""
        if self._guidance.view.task == "seq2seq_lm":
            inputs = with_decoder_inputs(inputs, self._student_config)
        kept = (self._student_parameters - set(LABEL_NAMES)).union(CARRIED)  # numbered rows are read by a hook
        return {k: v for k, v in inputs.items() if k in kept}

    def _weights(self, *, labelled: bool, taught: bool) -> dict[str, float]:
        if not taught:
            return {"ce_loss": 1.0}
        alpha = self.args.alpha if labelled else 1.0
        return {"kd_loss": alpha, "ce_loss": 1 - alpha, **self._guidance.features.weights}

    def _ask_teacher(self, inputs: Mapping[str, Any], *, hidden: bool, needed: bool) -> Taught | None:
        if self.teacher is None:
            if needed and SOFT_LABEL in inputs:
                raise unread_soft_labels()
            return None
        with self.accelerator.autocast():
            taught = self.teacher(inputs, hidden=hidden)
        if taught is None and needed:
            raise self.teacher.not_found(inputs) if isinstance(self.teacher, TeacherCache) else missing_soft_labels()
        return taught

    def _loss_terms(
        self, outputs: Any, scores: Tensor, taught: Taught | None, reading: Reading, counts: Tensor
    ) -> dict[str, Tensor]:
        """Each term summed over this batch's positions and divided by the counts of the step."""
        terms = {}
        if taught is not None:
            divergence = self._guidance.compare(scores, taught, reading, self.args.loss_options)
            # Without anything heard, or any label, in a step its term is 0, not NaN.
            terms["kd_loss"] = torch.where(reading.heard, divergence, 0.0).sum() / counts[HEARD].clamp(min=1)
        if reading.labels is not None:
            terms["ce_loss"] = self._label_term(outputs, scores, reading, counts[LABELS])
        return terms

    def _label_term(self, outputs: Any, scores: Tensor, reading: Reading, count: Tensor) -> Tensor:
        if self.compute_loss_func is not None:
            return self.compute_loss_func(outputs, reading.labels, num_items_in_batch=count)
        smoothing = self.args.label_smoothing_factor
        return label_loss(self._guidance.view, scores, reading, count.clamp(min=1), smoothing)

    def _averages_across_devices(self) -> bool:
        return self.args.average_tokens_across_devices and self.accelerator.num_processes > 1

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # A teacher may read columns that its student does not, such as token_type_ids; without one, soft labels that
        # nobody reads are to be found.
        wanted = frozenset({SOFT_LABEL}) if self.teacher is None else self.teacher.parameters
        own: Any = self._signature_columns or []
        self._signature_columns: Any = own + sorted(wanted - set(own))

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

    def _tally(
        self, terms: dict[str, Tensor], scores: Tensor, taught: Taught | None, reading: Reading, counts: Tensor
    ) -> None:
        sums = {"asked": counts[HEARD], "labelled": counts[LABELS]}
        if "ce_loss" in terms:
            sums["ce_loss"] = terms["ce_loss"] * counts[LABELS]
        if taught is not None:
            sums |= {"heard": counts[HEARD], "kd_loss": terms["kd_loss"] * counts[HEARD]}
            alike = agreement(self._guidance.view, scores, taught.scores, reading.heard)
            sums |= {} if alike is None else {"agreement": alike}
        for name, value in sums.items():
            value = value.detach().double()
            self._evaluation[name] = self._evaluation[name] + value if name in self._evaluation else value

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict as Trainer does; a batch without labels is held against the teacher.

        Args:
            model: The student.
            inputs: A batch.
            prediction_loss_only: Whether predictions are thrown away.
            ignore_keys: Outputs of the model to leave out.

        Returns:
            Loss, predictions and labels, each where there is one.
        """
        labelled = self.label_names and all(inputs.get(name) is not None for name in self.label_names)
        if labelled or self.teacher is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            scores = None if prediction_loss_only else self._guidance.view.scores(outputs, inputs)
        return loss.detach(), scores, None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, and report the loss terms and the agreement with the teacher.

        Args:
            dataloader: Batches to evaluate on.
            description: What the progress bar says.
            prediction_loss_only: Whether predictions are thrown away.
            ignore_keys: Outputs of the model to leave out.
            metric_key_prefix: Begins the name of each metric.

        Returns:
            Trainer's output; its metrics hold `eval_ce_loss` and, with a teacher, `eval_kd_loss` and `eval_agreement`
            (share of positions with equal argmax).
        """
        self._evaluation = {}
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        metrics = {}
        sums = {name: self.accelerator.reduce(v, reduction="sum").item() for name, v in self._evaluation.items()}
        if 0 < sums.get("heard", 0) < sums["asked"]:  # a teacher's cache that holds some of these rows
            logger.warning("Some rows of this evaluation are not in the teacher's cache: agreement is not reported.")
            sums = {name: value for name, value in sums.items() if name not in ("kd_loss", "agreement")}
        for name, per in (("kd_loss", "heard"), ("ce_loss", "labelled"), ("agreement", "heard")):
            if name in sums and sums[per]:
                metrics[f"{metric_key_prefix}_{name}"] = sums[name] / sums[per]
        # Ours first: a notebook's table takes its prefix from the last metric that ends in "_loss".
        return output._replace(metrics={**metrics, **(output.metrics or {})})

    # ------------------------------------------------------------------ the card
    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write README.md: from `shrink_report.json` of the output folder, or from what was trained and logged.

        Args:
            language: ISO 639-1 code.
            license: The Hub's identifier of the licence.
            tags: Tags beside those of hf_shrink.
            model_name: What the card calls the model.
            finetuned_from: Hub id of what the student began as; found from its config if None.
            tasks: The Hub's name of the task; found from the model if None.
            dataset_tags: Hub ids of the training data.
            dataset: Names of the training data, where it has no Hub id.
            dataset_args: Configurations of the training data.
        """
        if not self.is_world_process_zero():
            return
        facts = CardFacts(
            language=as_tuple(language),
            license=license,
            tags=(*self._tag_names, *as_tuple(tags)),
            model_name=model_name,
            base_model=finetuned_from,
            pipeline_tag=next(iter(as_tuple(tasks)), None),
            datasets=as_tuple(dataset_tags) or as_tuple(dataset),
            dataset_args=as_tuple(dataset_args),
        )
        card = trainer_card(self, self.teacher, self.logit_loss, facts)
        (Path(str(self.args.output_dir)) / "README.md").write_text(card, encoding="utf-8")


def _prepared(student: nn.Module, args: DistillationTrainingArguments, peft_config: Any) -> nn.Module:
    if peft_config is not None:
        from peft import get_peft_model

        student = get_peft_model(student, peft_config)
    if args.disable_dropout:
        disable_dropout(student)
    return student


def _student(model: nn.Module | str | Path | None, model_init: Any) -> nn.Module:
    """The student, checked; with `model_init` one that stands for those to come."""
    if model is None and model_init is None:
        raise ShrinkError("`model` must be given, got None. Make a student with make_student(teacher, …).")
    return model_init() if model is None else load_model(model)


def _check_labels(dataset: Any, num_labels: int, teacher: Any) -> None:
    """Refuse labels outside the range now: in the loss, many steps later, they end in an index error."""
    for rows in dataset.values() if isinstance(dataset, dict) else [dataset]:
        if isinstance(rows, Dataset):
            for column in {"labels", "label"} & set(rows.column_names):
                check_labels(rows, column, num_labels)
            if isinstance(teacher, SoftLabels):
                check_soft_labels(rows, num_labels)
