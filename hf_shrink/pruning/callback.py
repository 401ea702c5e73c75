"""A callback that prunes the model of any Trainer while it trains."""

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.config import PruningConfig
from hf_shrink.pruning.criteria import CALIBRATED, CRITERIA
from hf_shrink.pruning.pruner import Pruner

logger = logging.get_logger(__name__)
TAGS = ["hf-shrink", "pruning"]
_RUNNING: WeakKeyDictionary[Any, list["PruningCallback"]] = WeakKeyDictionary()  # by the run's optimizer


class PruningCallback(TrainerCallback, ExportableState):
    """Prune a model while it trains, in any `Trainer`.

    The masks hold after every optimizer step, so that each log, evaluation and checkpoint sees the pruned model; it is
    a plain one, with zeros in it and no keys of its own. A resumed run goes on as if it had not been cut off. What
    masks alone do not bring is speed: `compact` makes structured ones into smaller matrices.

    With `load_best_model_at_end` only checkpoints of the final sparsity compete. Several callbacks may prune one model
    (neurons and 2:4, say); what one has set to zero stays zero for the others.

    Args:
        config: The settings, as an object or as a dictionary of its fields.
        checkpoint: Folder with the `pruning_state` of the checkpoint that is resumed from; to be given only where that
            checkpoint was moved.

    Raises:
        ShrinkError: If the method needs more than training gives it.
    """

    def __init__(self, config: PruningConfig | dict[str, Any], *, checkpoint: str | Path | None = None) -> None:
        self.config = config if isinstance(config, PruningConfig) else PruningConfig(**config)
        if CRITERIA[self.config.method].facts["reads"] in CALIBRATED:
            raise ShrinkError(
                f"`method` must be one that needs no calibration rows, got {self.config.method!r}. "
                f'Prune before or after training: prune(model, method="{self.config.method}", …).'
            )
        self.checkpoint = checkpoint
        self.run_id = ""
        self.pruner: Pruner | None = None
        self._run: TrainerState | None = None
        self._final_step: int | None = None  # of the run, at which the final sparsity was there
        self._next_folder = ""  # of a checkpoint that is written now

    # ------------------------------------------------------------------ the run
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find what is pruned, and take up a checkpoint's masks."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        _check_run(args, optimizer, self.config)
        pruner = Pruner(model, self.config, state.max_steps)
        # A Trainer may train again with the same optimizer, after an interruption too: each run has its own state.
        others = [other for other in _RUNNING.get(optimizer, []) if other._run is state and other is not self]
        for other in others:
            _check_pair(pruner, other.pruner)
        self._final_step = None
        if state.global_step > 0:
            self.run_id = self._load(pruner, args, state, number=len(others))
        else:
            self.run_id = secrets.token_hex(8)
            pruner.start()
        self.pruner = pruner
        self._note_final_step(state)
        self._run = state
        _RUNNING[optimizer] = [*others, self]
        _tag(model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the optimizer off pruned weights."""
        self._running.before_step()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose what is pruned where that is due, and set it to zero."""
        optimizer = kwargs["optimizer"]
        group = optimizer.param_groups[0]
        full = group.get("initial_lr", group["lr"])
        rate = group["lr"] / full if full > 0 else 1.0
        last = state.global_step + 1 >= state.max_steps
        self._running.after_step(optimizer, skipped=optimizer.step_was_skipped, rate=rate, last=last)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note when the final sparsity is there."""
        self._note_final_step(state)
        self._next_folder = str(self._folder(args, state))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log `sparsity`, the share of what can be pruned that is."""
        logs = kwargs.get("logs")
        if logs is not None and self.pruner is not None and "loss" in logs:
            key = "sparsity" if len(self._siblings(kwargs)) < 2 else f"sparsity_{self.config.structure}"
            logs[key] = self.pruner.sparsity
            state.log_history[-1][key] = self.pruner.sparsity

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let no checkpoint with less than the final sparsity be the best one."""
        if self.pruner is None or not args.load_best_model_at_end:
            return
        if self._final_step is None or (state.best_global_step or 0) < self._final_step:
            state.best_metric = state.best_model_checkpoint = state.best_global_step = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write masks and scores beside the checkpoint's optimizer."""
        if not args.should_save or state.is_hyper_param_search:
            return
        path = self._folder(args, state) / file_name(self._siblings(kwargs).index(self))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._running.tensors().items()}
        save_file(tensors, path, metadata={"run_id": self.run_id, "global_step": str(state.global_step)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say what came of it."""
        pruner = self._running
        if pruner.step < pruner.ramp.end:
            logger.warning(
                f"Training stopped at step {pruner.step}, before pruning's end at {pruner.ramp.end}: the sparsity is "
                f"{pruner.sparsity:.4f}, not {self.config.final_sparsity}."
            )
        logger.info(f"{self.config.structure}: sparsity {pruner.sparsity:.4f} of {len(pruner.masks)} parameters.")

    # ------------------------------------------------------------------ checkpoints
    def state(self) -> dict[str, Any]:
        """What the Trainer writes into its own state.

        Returns:
            JSON values; masks and scores are in a file of their own.
        """
        attributes = {"run_id": self.run_id, "checkpoint": self._next_folder}
        return {"args": {"config": asdict(self.config)}, "attributes": attributes}

    def _load(self, pruner: Pruner, args: TrainingArguments, state: TrainerState, number: int) -> str:
        """Take up the file that belongs to the resumed state, and say which run it is of."""
        callbacks: Any = state.stateful_callbacks  # annotated as what goes in; what comes out is a dictionary
        stored = callbacks.get(type(self).__name__, [])
        saved = [entry["attributes"] for entry in (stored if isinstance(stored, list) else [stored])]
        runs = {attributes["run_id"] for attributes in saved}
        places = [self.checkpoint, self._folder(args, state), *(attributes["checkpoint"] for attributes in saved)]
        for place in filter(None, places):
            path = Path(place) / file_name(number)
            if not path.is_file():
                continue
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                if about["run_id"] in runs and about["global_step"] == str(state.global_step):
                    pruner.load({name: file.get_tensor(name) for name in file.keys()})
                    return about["run_id"]
        raise ShrinkError(
            f"`resume_from_checkpoint` must hold the {file_name(number)} of step {state.global_step}, and none was "
            f"found in {self._folder(args, state)}. Where the checkpoint lies elsewhere, say so: "
            "PruningCallback(config, checkpoint=folder)."
        )

    @staticmethod
    def _folder(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"

    # ------------------------------------------------------------------ itself
    @property
    def _running(self) -> Pruner:
        if self.pruner is None:
            raise ShrinkError("`PruningCallback` must be there when training begins. Give it to the Trainer before.")
        return self.pruner

    def _siblings(self, kwargs: dict[str, Any]) -> list["PruningCallback"]:
        return _RUNNING.get(kwargs["optimizer"], [self])

    def _note_final_step(self, state: TrainerState) -> None:
        if self._final_step is None and self._running.step >= self._running.ramp.end:
            self._final_step = state.global_step


def file_name(number: int) -> str:
    """What a checkpoint calls the state of a pruning callback.

    Args:
        number: How many pruning callbacks came before it.

    Returns:
        Name of the file.
    """
    return f"pruning_state-{number}.safetensors" if number else "pruning_state.safetensors"


def _check_run(args: TrainingArguments, optimizer: Any, config: PruningConfig) -> None:
    if args.fsdp or args.deepspeed:
        name = "fsdp" if args.fsdp else "deepspeed"
        raise ShrinkError(
            f"`{name}` must be off while pruning, because a process then holds parts of the weights. "
            "Train with several processes as DistributedDataParallel."
        )
    scales = getattr(optimizer, "scaler", None) is not None  # only accelerate's optimizer has one
    if scales and not args.max_grad_norm and CRITERIA[config.method].facts["reads"] in ("gradients", "scores"):
        raise ShrinkError(
            f"`max_grad_norm` must be above 0 with fp16 and method {config.method!r}, got {args.max_grad_norm}: "
            "without clipping the gradients stay scaled. Give 1.0, or a very large one."
        )


def _check_pair(pruner: Pruner, other: Pruner | None) -> None:
    if other is None or not pruner.structure.parameters.keys() & other.structure.parameters.keys():
        return
    shared = sorted(pruner.structure.parameters.keys() & other.structure.parameters.keys())[0]
    same = pruner.config.structure == other.config.structure
    if same or pruner.worth.lets_grow or other.worth.lets_grow:
        why = f"both prune {pruner.config.structure}" if same else "movement lets pruned weights come back"
        raise ShrinkError(
            f"`callbacks` must not prune the same weights twice where {why}, and two of them share {shared}. "
            "Give them other `targets`, or leave one out."
        )


def _tag(model: nn.Module) -> None:
    inner = inner_model(model)
    if isinstance(inner, PreTrainedModel):
        inner.add_model_tags(TAGS)
