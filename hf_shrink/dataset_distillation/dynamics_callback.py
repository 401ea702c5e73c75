"""A callback that scores rows while any Trainer trains on them."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_shrink.dataset_distillation.dynamics import Values, read_by
from hf_shrink.dataset_distillation.numbered_rows import NumberedCollator, number_rows
from hf_shrink.dataset_distillation.recorder import Recorder
from hf_shrink.dataset_distillation.scores import SCORES
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import find_task

FILE = "training_dynamics.safetensors"  # beside the optimizer in a checkpoint


class TrainingDynamicsCallback(TrainerCallback, ExportableState):
    """Score the rows of the training set by how a model learns them, in any `Trainer`.

    Logits of the training's own forward passes are read: there is no further one, and the weights become what they
    would without the callback. A resumed run goes on as if it had not been cut off.

        callback = TrainingDynamicsCallback(["el2n", "forgetting"])
        trainer = Trainer(model, args, train_dataset=callback.number(dataset), callbacks=[callback])
        trainer.train()
        callback.scores()

    Args:
        scores: Names in `SCORES`.
        task: Name in `TASKS`; found from the model if None.
        checkpoint: Folder of the checkpoint that is resumed from; to be given only where it was moved.

    Raises:
        ShrinkError: If no score is named.
    """

    def __init__(
        self, scores: Sequence[str], *, task: str | None = None, checkpoint: str | Path | None = None
    ) -> None:
        if isinstance(scores, str) or not scores:
            raise ShrinkError(f"`scores` must be a list of names, got {scores!r}. Choose of {sorted(SCORES)}.")
        self.names = list(dict.fromkeys(scores))
        self.statistics = tuple(
            sorted({*read_by(self.names), "correct"})
        )  # the last tells whether anything was learned
        self.task = task
        self.checkpoint = checkpoint
        self.rows = 0
        self.run_id = ""
        self.recorder: Recorder | None = None
        self._next_folder = ""  # of a checkpoint that is written now

    def number(self, dataset: Dataset) -> Dataset:
        """Make rows tell which they are.

        Args:
            dataset: The training set, tokenised. Evaluation takes it as it was.

        Returns:
            The rows, to be given to the Trainer as they are.
        """
        numbered = number_rows(dataset)
        self.rows = len(numbered)
        return numbered

    def scores(self) -> dict[str, Values]:
        """What came of it, at any moment of the run or after it.

        Returns:
            Score to its values, shape (N,), float32, in the order of the rows that were numbered; NaN for rows that
            were never seen.
        """
        return {name: SCORES[name].function(self.dynamics) for name in self.names}

    @property
    def dynamics(self) -> Mapping[str, Values]:
        """Statistic to its values, shape (E, N), float32, NaN where an epoch did not see a row."""
        self._running.flush()
        return self._running.dynamics

    # ------------------------------------------------------------------ the run
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model, and take up what a checkpoint holds."""
        model: nn.Module = kwargs["model"]
        task = find_task(model, self.task)
        _check_run(args, task, self.rows)
        if self.recorder is not None:
            self.recorder.close()  # of a run that broke off
        self.recorder = Recorder(model, self.statistics, self.rows, shifted=task == "causal_lm")
        self.run_id = self._load(args, state) if state.global_step > 0 else secrets.token_hex(8)
        loader = kwargs["train_dataloader"]
        loader = vars(loader).get("base_dataloader", loader)  # accelerate's own hands on to the one that collates
        if isinstance(loader, DataLoader):
            loader.collate_fn = NumberedCollator(loader.collate_fn)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a line."""
        self._running.begin_epoch(int(state.epoch or 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note where a checkpoint of this step would be."""
        self._next_folder = str(_folder(args, state))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the dynamics beside the checkpoint's optimizer."""
        self._running.gather(args.device)
        if args.should_save:
            about = {"run_id": self.run_id, "global_step": str(state.global_step)}
            save_file(self._running.dynamics, _folder(args, state) / FILE, metadata=about)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gather what the processes saw, and let go of the model."""
        self._running.gather(args.device)
        self._running.close()

    # ------------------------------------------------------------------ checkpoints
    def state(self) -> dict[str, Any]:
        """What the Trainer writes into its own state.

        Returns:
            JSON values; the dynamics are in a file of their own.
        """
        attributes = {"run_id": self.run_id, "rows": self.rows, "_next_folder": self._next_folder}
        return {"args": {"scores": self.names, "task": self.task}, "attributes": attributes}

    def _load(self, args: TrainingArguments, state: TrainerState) -> str:
        """Take up the file that belongs to the resumed state, and say which run it is of."""
        callbacks: Any = state.stateful_callbacks  # annotated as what goes in; what comes out is a dictionary
        saved = callbacks.get(type(self).__name__, {}).get("attributes", {})
        for place in filter(None, [self.checkpoint, _folder(args, state), saved.get("_next_folder")]):
            path = Path(place) / FILE
            if not path.is_file():
                continue
            with safe_open(path, framework="numpy") as file:
                about = file.metadata()
                if about == {"run_id": saved.get("run_id"), "global_step": str(state.global_step)}:
                    self._running.load({name: file.get_tensor(name) for name in file.keys()})
                    return about["run_id"]
        raise ShrinkError(
            f"`resume_from_checkpoint` must hold the {FILE} of step {state.global_step}, and none was found in "
            f"{_folder(args, state)}. Where the checkpoint lies elsewhere, say so: "
            "TrainingDynamicsCallback(scores, checkpoint=folder)."
        )

    @property
    def _running(self) -> Recorder:
        if self.recorder is None:
            raise ShrinkError(
                "`TrainingDynamicsCallback` must be there when training begins, got no training. Give it to the "
                "Trainer as callbacks=[callback], and train."
            )
        return self.recorder


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _check_run(args: TrainingArguments, task: str, rows: int) -> None:
    if not rows:
        raise ShrinkError(
            "`train_dataset` must be numbered before training, got rows that are not. Give the Trainer "
            "callback.number(dataset)."
        )
    check_scored_task(task)
    if args.torch_compile:
        raise ShrinkError(
            "`torch_compile` must be off while rows are scored, because a compiled model reports no row. Leave it out."
        )
    if args.n_gpu > 1:
        raise ShrinkError(
            f"`n_gpu` must be 1 a process while rows are scored, got {args.n_gpu}. Start one process a GPU: "
            "torchrun --nproc-per-node, or accelerate launch."
        )


def check_scored_task(task: str) -> None:
    """Refuse a task whose answers are no choice among classes.

    Args:
        task: Name in `TASKS`.

    Raises:
        ShrinkError: If it is one.
    """
    if task in ("regression", "question_answering", "feature_extraction"):
        raise ShrinkError(
            f"`model` must answer with classes or tokens to score rows, got one for {task}. Choose another model."
        )
