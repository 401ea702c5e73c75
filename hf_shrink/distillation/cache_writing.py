"""Run a teacher over a dataset once, and keep what it says."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.cache_answers import Answering, make_answering
from hf_shrink.distillation.cache_columns import FOLDER, KEY_COLUMN, PartWriter, open_parts, part_files
from hf_shrink.distillation.cache_settings import FILE, CacheSettings
from hf_shrink.distillation.key_index import KeyIndex, SeenKeys
from hf_shrink.distillation.row_keys import RowReader
from hf_shrink.distillation.teacher import config_of
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import TOKENIZED
from hf_shrink.inputs.datasets import load_rows
from hf_shrink.inputs.fingerprints import tokenizer_fingerprint, weights_fingerprint
from hf_shrink.inputs.models import load_model, load_processing_class, model_name
from hf_shrink.inputs.rows import default_collator, row_batches, tokenize_rows
from hf_shrink.inputs.tasks import find_task, inner_model

PROBED = 64  # rows: enough that a random collator cannot make the same batch twice
SORTED = 4096  # rows that are put in order of length at a time, so that batches hold little padding
Collator = Callable[[list[dict[str, Any]]], Any]


def cache_teacher(
    teacher: Any,
    dataset: Any,
    output_dir: str | Path = "teacher-cache",
    *,
    split: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Collator | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    task: str | None = None,
    pooling: str | None = None,
    hidden_layers: Sequence[int] | None = None,
    top_k: int | None = None,
) -> TeacherCache:
    """Run a teacher over a dataset once; `DistillationTrainer(teacher_model=cache)` then trains without it.

    A row is kept in half precision and without padding: the scores of its classes (2 bytes each), for token tasks of
    each of its tokens. Rows that the folder holds already are left out, so that a run that was cut off goes on, and a
    second dataset joins the first. Under `accelerate launch` the processes share the rows.

    Over a vocabulary that is much: 304,000 bytes a token where it has 152,000 entries. `top_k=16` makes 56 bytes of
    them: the likeliest entries of the teacher's softmax, off by a few hundredths of a nat (see `TokenPacking`), and
    the mass of all others. Only tokens at which a student hears the teacher are kept: a prompt, padding and words that
    are not masked take nothing, and the rows must have the labels that they are trained on. Of what is kept the
    trainer makes log-probabilities of the whole vocabulary, as large as the student's logits in single precision, in
    which the others share their mass evenly. That is a biased estimate of the tail: a student that is near its teacher
    needs a larger k. Train with `temperature=1.0`: softened, the tokens that were not kept outweigh those that were,
    and the student learns noise.

    A row is found again only if the teacher would read the same of it: train with the same tokenizer, `max_length` and
    collator. A model with absolute positions reads padding on the left as other positions, batch by batch: pad on the
    right for it.

    Args:
        teacher: A model, a folder or a Hub id; an instance is frozen, put into evaluation mode and, where there is
            one, onto the accelerator.
        dataset: A `Dataset`, or a path or Hub id.
        output_dir: A new folder, or one that holds a cache of the same teacher and settings.
        split: Where the dataset has several.
        processing_class: What prepares raw rows; loaded from where the teacher was if None and needed.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        data_collator: Makes a padded batch; None takes the one of the task. It must not be random.
        batch_size: Rows that the teacher reads at once.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's own limit.
        task: Name in `TASKS`; found from the teacher if None.
        pooling: As in `DistillationTrainingArguments`: one vector a row, of embeddings and of hidden states.
        hidden_layers: Layers whose hidden states are kept too, counted from 0 or, if negative, from the end.
        top_k: For masked_lm, causal_lm and seq2seq_lm: entries of each token's softmax that are kept, in [1, V]; None
            keeps all scores.

    Returns:
        The cache.

    Raises:
        ShrinkError: If the teacher, the rows or the collator cannot be cached, or the folder holds something else.
    """
    model = load_model(teacher, task=task)
    if not isinstance(model, nn.Module):
        raise ShrinkError(
            f"`teacher` must be a transformers model, got {type(model).__name__}. Give the model it was made from."
        )
    raw = load_rows(dataset, split)
    if not len(raw):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    transformed = raw.format["type"] == "custom"  # a transform of the user's makes the model's inputs itself
    prepared = transformed or set(TOKENIZED) & set(raw.column_names)
    if processing_class is None and (data_collator is None or not prepared):
        processing_class = load_processing_class(teacher)
    task, state, folder = find_task(model, task), _processes(), Path(output_dir).expanduser()
    answering = make_answering(model, task, state.device, pooling=pooling, hidden_layers=hidden_layers, top_k=top_k)
    collator = data_collator or default_collator(processing_class, task)
    columns: dict[str, Any] = {"text_column": text_column, "label_column": label_column}
    with _random_state_kept():
        with state.main_process_first():
            rows = raw
            if not transformed:
                rows = tokenize_rows(raw, processing_class, task=task, max_length=max_length, **columns)
        settings = CacheSettings(
            teacher=model_name(teacher),
            commit=vars(answering.teacher.config).get("_commit_hash"),
            weights=weights_fingerprint(model),
            task=task,
            pooling=pooling if answering.layers else None,
            embedding_pooling=answering.embedding_pooling,
            hidden_layers=answering.layers,
            parameters=tuple(sorted(answering.teacher.parameters)),
            inputs=_check_repeatable(rows, collator, answering.reader),
            tokenizer=tokenizer_fingerprint(processing_class),
            max_length=max_length,
            top_k=top_k,
        )
        writer, known = _open(folder, settings, model, state)
        share = rows.shard(state.num_processes, state.process_index, contiguous=True)
        with writer, tqdm(total=len(share), desc="Caching", unit=" rows", disable=not state.is_main_process) as bar:
            _write(share, collator, batch_size, answering, SeenKeys(known), writer, bar)
        state.wait_for_everyone()
    return TeacherCache.load(folder)


def _processes() -> PartialState:
    """All processes of the launch; without being told, accelerate takes those of a CPU for one each."""
    cpu = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=cpu)


def _write(
    rows: Dataset,
    collator: Collator,
    batch_size: int,
    answering: Answering,
    seen: SeenKeys,
    writer: PartWriter,
    bar: Any,
) -> None:
    for start in range(0, len(rows), SORTED):
        window = _by_length(rows.select(range(start, min(start + SORTED, len(rows)))))
        for batch in row_batches(window, collator, batch_size):
            keys = answering.reader.keys(batch)
            if new := seen.first_seen(keys):
                writer.add(answering.table(batch, keys, new))
            bar.update(len(keys))


def _by_length(rows: Dataset) -> Dataset:
    """The longest first: what does not fit into memory fails at once."""
    if rows.format["type"] is not None or "input_ids" not in rows.column_names:
        return rows
    lengths = pc.list_value_length(rows.select_columns("input_ids").with_format("arrow")[:]["input_ids"])
    return rows.select(np.argsort(-lengths.to_numpy(), kind="stable"))


def _check_repeatable(rows: Dataset, collator: Collator, reader: RowReader) -> tuple[str, ...]:
    """Make the first batch twice, from the dataset anew; name what the teacher reads of it."""
    first, again = (next(row_batches(rows, collator, min(PROBED, len(rows)))) for _ in range(2))
    inputs = tuple(reader.inputs(first))
    if not inputs:
        raise ShrinkError(
            f"`dataset` must hold what the teacher reads ({', '.join(sorted(reader.parameters))}), got "
            f"{sorted(first)}. Prepare the rows as its model card says."
        )
    if reader.keys(first) != reader.keys(again):
        raise ShrinkError(
            "`data_collator` must make the same batch of the same rows, got other values the second time: it (or the "
            "dataset's transform) masks or augments at random, and no row would be found again. Mask or augment once "
            "with dataset.map(), cache these rows, and train on them with a collator that only pads, such as "
            "DataCollatorForTokenClassification."
        )
    return inputs


def _open(folder: Path, settings: CacheSettings, model: nn.Module, state: PartialState) -> tuple[PartWriter, KeyIndex]:
    """Check the folder or make it; all processes see the same parts in it before one of them writes."""
    if (folder / FILE).is_file():
        CacheSettings.read(folder).check_same(settings, folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ShrinkError(
            f"`output_dir` must be a new folder or a teacher's cache, but {folder} holds other files. Choose another."
        )
    state.wait_for_everyone()
    if state.is_main_process:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        if not (folder / FILE).is_file():
            settings.write(folder)
        config = copy.deepcopy(config_of(model, "teacher"))
        config.architectures = [type(inner_model(model)).__name__]
        config.save_pretrained(folder)
        for leftover in (folder / FOLDER).glob("*.unfinished"):
            leftover.unlink()
    there = open_parts(folder) if part_files(folder) else None
    known = KeyIndex.of([] if there is None else there.data.column(KEY_COLUMN).to_pylist())
    numbers = [int(part.stem.rsplit("-", 1)[1]) for part in part_files(folder)]
    state.wait_for_everyone()
    first = max(numbers, default=-1) + 1 + state.process_index
    return PartWriter(folder, first, state.num_processes), known


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Whatever a collator or a transform draws, the caller's generators are as they were."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the caller's own
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002
