"""A callback that trains the model of any Trainer for the numbers it will be quantized to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.evaluation_loss import evaluation_loss
from hf_shrink.quantization.fake_quantization import enable, find_modules, make_fake_quantized, make_plain, put_on_grid
from hf_shrink.quantization.start_weights import StartWeights
from hf_shrink.quantization.weight_grid import GRIDS, WeightGrid

logger = logging.get_logger(__name__)
TAGS = ["hf-shrink", "quantization-aware-training"]
_RUNNING: WeakKeyDictionary[nn.Module, "QuantizationAwareCallback"] = WeakKeyDictionary()


class QuantizationAwareCallback(TrainerCallback):
    """Train a model for the numbers it will be quantized to, in any `Trainer` (Jacob et al., arXiv:1712.05877).

    Linear maps compute with weights rounded to their grid, "int8" ones with inputs rounded to 8 bits too, one range a
    token; each log and evaluation sees that model. Gradients pass the rounding as if it were not there. Checkpoints
    hold the weights as they are trained, under stock names, and a resumed run goes on as if it had not been cut off.

    At the end the weights themselves are put on the grid, and the model is a plain float one: it loads with its stock
    class, and a quantizer with the same levels and groups finds every weight where it is. Levels are symmetric for
    "int8", with one step an output channel; below they have a zero point for each group.

    Training may lose against quantizing the model as it was before (whose weights wait in CPU memory until then).
    Therefore both are evaluated at the end, on the rows of the Trainer's last evaluation, and the better one stays;
    `report` and the Trainer's `log_history` say which. What training set to zero, as `PruningCallback` does, is zero
    in both. With `load_best_model_at_end` only checkpoints compete that were evaluated with rounded weights.

    Args:
        method: "int8", "int4", "int3" or "int2".
        group_size: Weights of a row that share a step, at least 2; None is 32, and the whole row for "int8".
        ignore: What stays in float beside the model's heads: full names of modules, or "re:" with a regular expression
            that a full name begins with.
        embeddings: Method of the token embeddings, and of a head that shares their weight; None leaves them in float.
        start_step: When rounding begins: a share in [0, 1) of the run if it is a float, a step if it is an int.
        evaluate: Called twice at the end in place of the model's own loss on the evaluation rows; what gives the lower
            number stays. With a `Trainer` called trainer: `lambda: trainer.evaluate()["eval_loss"]`.
        checkpoint: Folder of the checkpoint that is resumed from; to be given only where it was moved.

    Attributes:
        report: After training: `loss` and `post_training_loss` (None where there were no rows to evaluate on), and
            which weights were `kept`, "trained" or "start".
    """

    def __init__(
        self,
        method: str = "int8",
        *,
        group_size: int | None = None,
        ignore: Sequence[str] = (),
        embeddings: str | None = None,
        start_step: float = 0,
        evaluate: Callable[[], float] | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        require("torchao", extra="torchao")
        _check_settings(method, group_size, ignore, embeddings, start_step)
        self.method, self.ignore, self.start_step = method, tuple(ignore), start_step
        self.grid = replace(GRIDS[method], group_size=group_size or GRIDS[method].group_size)
        self.embedding_grid = None if embeddings is None else GRIDS[embeddings]
        self.evaluate = evaluate
        self.checkpoint = checkpoint
        self.report: dict[str, Any] | None = None
        self.modules: dict[str, tuple[nn.Module, WeightGrid]] = {}
        self._run: TrainerState | None = None
        self._start: StartWeights | None = None
        self._first_step = 0  # that rounds
        self._evaluated_at = -1
        self._dataloaders: list[Any] = []  # of the evaluation at that step

    # ------------------------------------------------------------------ the run
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find what is quantized, and let it round from now on, or from the first step that is to."""
        model = kwargs["model"]
        _check_run(args)
        _take_over(model, state)
        first = self.start_step
        self._first_step = round(first * state.max_steps) if isinstance(first, float) else first
        if self._first_step >= state.max_steps:
            raise ShrinkError(
                f"`start_step` must lie within the run of {state.max_steps} steps, got {first}. Begin earlier."
            )
        modules = find_modules(model, self.grid, self.ignore, self.embedding_grid)
        if state.global_step > 0:
            self._start = StartWeights.load(self._folders(args, state), model, self._settings())
        else:
            self._start = StartWeights.of(model)
        make_fake_quantized(modules, activations=self.method == "int8")
        enable(modules, state.global_step >= self._first_step)
        self.modules, self._run, self.report = modules, state, None
        self._evaluated_at, self._dataloaders = -1, []
        _RUNNING[model] = self
        if isinstance(model, PreTrainedModel):
            model.add_model_tags(TAGS)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to round when it is time."""
        if state.global_step == self._first_step:
            enable(self.modules, True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have an evaluation before the end, where there are rows for one."""
        last = state.global_step >= state.max_steps or control.should_training_stop
        if last and args.eval_strategy != "no" and not self._dataloaders:
            control.should_evaluate = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the rows, and let no checkpoint be the best one that was evaluated in float."""
        if self._run is not state:
            return
        if state.global_step != self._evaluated_at:
            self._evaluated_at, self._dataloaders = state.global_step, []
        self._dataloaders.append(kwargs["eval_dataloader"])
        if args.load_best_model_at_end and 0 < self._first_step and (state.best_global_step or 0) <= self._first_step:
            state.best_metric = state.best_model_checkpoint = state.best_global_step = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the weights from before training beside the optimizer of a checkpoint."""
        if args.should_save and not args.save_only_model and not state.is_hyper_param_search:
            self._running.save(_folder(args, state), kwargs["model"], self._settings())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep what is better, put it on the grid, and leave a plain model."""
        model, start = kwargs["model"], self._running
        enable(self.modules, True)
        loss, other = self._loss(model), None
        if loss is not None:
            with start.instead(model):
                other = self._loss(model)
        lost = loss is not None and other is not None and (other < loss or math.isnan(loss))
        if lost:
            start.put_into(model)
        put_on_grid(self.modules)
        make_plain(self.modules)
        self.report = {
            "method": self.method,
            "modules": len(self.modules),
            "loss": loss,
            "post_training_loss": other,
            "kept": "start" if lost else "trained",
        }
        self._say(state)
        self.modules, self._run, self._start, self._dataloaders = {}, None, None, []
        del _RUNNING[model]

    # ------------------------------------------------------------------ itself
    def _loss(self, model: nn.Module) -> float | None:
        return evaluation_loss(model, self._dataloaders) if self.evaluate is None else float(self.evaluate())

    def _say(self, state: TrainerState) -> None:
        report = self.report or {}
        if report["loss"] is None:
            logger.warning(
                "Whether quantization-aware training beat quantization after training is not known: there was no "
                "evaluation with a loss of the model's own. Give the Trainer an eval_dataset and an eval_strategy, or "
                "the callback an `evaluate`. The trained weights stay."
            )
            return
        figures = f"{report['loss']:.4f} with training, {report['post_training_loss']:.4f} without"
        if report["kept"] == "start":
            logger.warning(
                f"Quantization-aware training lost against quantization after training (loss {figures}): the model "
                f"has its weights from before again, in {self.method}. Train longer, or at another learning rate."
            )
        logger.info(f"Loss in {self.method}: {figures}.")
        losses = {"quantized_loss": report["loss"], "post_training_loss": report["post_training_loss"]}
        state.log_history.append({**losses, "epoch": state.epoch, "step": state.global_step})

    @property
    def _running(self) -> StartWeights:
        if self._start is None:
            raise ShrinkError(
                "`QuantizationAwareCallback` must be there when training begins. Give it to the Trainer before."
            )
        return self._start

    def _settings(self) -> dict[str, str]:
        settings = {"grid": self.grid, "embeddings": self.embedding_grid, "ignore": self.ignore}
        return {name: str(value) for name, value in settings.items()}

    def _folders(self, args: TrainingArguments, state: TrainerState) -> list[Path]:
        given = [] if self.checkpoint is None else [Path(self.checkpoint)]
        return [*given, _folder(args, state)]


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _take_over(model: nn.Module, state: TrainerState) -> None:
    """Undo what a run left that was interrupted; another callback of this run is an error."""
    other = _RUNNING.pop(model, None)
    if other is None:
        return
    if other._run is state:
        _RUNNING[model] = other
        raise ShrinkError("`callbacks` must hold one QuantizationAwareCallback, got two. Leave one out.")
    make_plain(other.modules)


def _check_settings(
    method: str, group_size: int | None, ignore: Sequence[str], embeddings: str | None, start_step: float
) -> None:
    for name, value in (("method", method), ("embeddings", embeddings)):
        if value not in GRIDS and not (name == "embeddings" and value is None):
            raise ShrinkError(f"`{name}` must be one of {list(GRIDS)}, got {value!r}. Choose the bits of the weights.")
    if group_size is not None and (group_size < 2 or GRIDS[method].group_size is None):
        raise ShrinkError(
            f"`group_size` must be at least 2, and left out for int8, got {group_size} for {method}. Write 32."
        )
    if isinstance(ignore, str):
        raise ShrinkError(f"`ignore` must be a list of names, got the text {ignore!r}. Write [{ignore!r}].")
    if not start_step >= 0 or (isinstance(start_step, float) and not start_step < 1):
        raise ShrinkError(
            f"`start_step` must be a share in [0, 1) as a float, or a step as an int, got {start_step!r}. "
            "0 rounds from the first step on."
        )


def _check_run(args: TrainingArguments) -> None:
    if args.fsdp or args.deepspeed:
        name = "fsdp" if args.fsdp else "deepspeed"
        raise ShrinkError(
            f"`{name}` must be off in quantization-aware training, because a process then holds parts of the weights. "
            "Train with several processes as DistributedDataParallel."
        )
