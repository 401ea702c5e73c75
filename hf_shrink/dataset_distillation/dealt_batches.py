"""A model is asked about all rows: in batches that are the same for any number of processes, dealt out to them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_shrink.dataset_distillation.encoded_parts import InFolder, InMemory

Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Answer = Callable[[Mapping[str, Any], NDArray[np.int64]], NDArray[np.float16]]


def processes() -> PartialState:
    """All processes of the launch; without being told, accelerate takes those of a CPU for one each."""
    return PartialState(cpu=not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))


def longest_first(rows: Dataset) -> NDArray[np.int64]:
    """Put rows of about one length together, the longest first: what does not fit into memory fails at once.

    Args:
        rows: Prepared for a model.

    Returns:
        Their positions; in the given order where all are of one length, as images are.
    """
    if rows.format["type"] is not None or "input_ids" not in rows.column_names:
        return np.arange(len(rows))
    tokens = rows.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    return np.argsort(-pc.list_value_length(tokens).to_numpy(), kind="stable")


def deal_batches(
    rows: Dataset,
    order: NDArray[np.int64],
    collator: Collator,
    answer: Answer,
    state: PartialState,
    *,
    batch_size: int,
    chunk_rows: int,
    keep: InMemory | InFolder,
    title: str,
) -> NDArray[np.float16]:
    """Ask about all rows.

    Args:
        rows: Prepared for the model, N.
        order: In which they are asked about, shape (N,).
        collator: Makes a batch of rows.
        answer: Takes a batch and its rows' positions, and gives one vector a row.
        state: The processes.
        batch_size: Rows asked about at once.
        chunk_rows: Rows that go to one process and are kept together, a multiple of the batch size.
        keep: Where the answers go.
        title: What the progress bar says.

    Returns:
        Shape (N, D), in the order of the rows.
    """
    own = range(state.process_index, -(-len(rows) // chunk_rows), state.num_processes)
    todo = [chunk for chunk in own if not keep.holds(chunk)]
    total, hidden = sum(min(chunk_rows, len(rows) - c * chunk_rows) for c in todo), not state.is_main_process
    with tqdm(total=total, desc=title, unit=" rows", disable=hidden) as bar:
        for chunk in todo:
            positions, found = order[chunk * chunk_rows : (chunk + 1) * chunk_rows], []
            for start in range(0, len(positions), batch_size):
                asked = positions[start : start + batch_size]
                columns = rows[asked.tolist()]
                batch = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
                found.append(answer(collator(batch), asked))
                bar.update(len(asked))
            keep.add(chunk, positions, np.concatenate(found))
    return keep.finish(state)
