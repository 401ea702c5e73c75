"""Where vectors are kept while rows are encoded: in memory, or in a folder from which a cut-off run goes on."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError

FILE, PARTS, SETTINGS = "embeddings.npy", "parts", "encoding.json"
FORMAT = 1
SHARED_BYTES = 64 * 2**20  # sent at a time, so that an accelerator's memory is not filled


class InMemory:
    """Keeps the vectors of this process, and shares them with the others.

    Args:
        rows: N.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._found: list[tuple[NDArray[np.int64], NDArray[np.float16]]] = []

    def holds(self, chunk: int) -> bool:
        """Whether a chunk was encoded by an earlier run: never.

        Args:
            chunk: Its number.

        Returns:
            False.
        """
        return False

    def add(self, chunk: int, positions: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        """Keep the vectors of one chunk.

        Args:
            chunk: Its number.
            positions: Of its rows in the dataset.
            vectors: One a row.
        """
        self._found.append((positions, vectors))

    def finish(self, state: PartialState) -> NDArray[np.float16]:
        """Bring the vectors of all processes together.

        Args:
            state: The processes.

        Returns:
            Shape (N, D), the same in each process.
        """
        width = max(gather_object([self._found[0][1].shape[1] if self._found else 0]))
        whole = np.zeros((self._rows, width), dtype=np.float16)
        for positions, vectors in self._found:
            whole[positions] = vectors
        self._found = []
        return share(whole, state)


class InFolder:
    """Writes each chunk to a file of its own, which is whole or not there.

    Args:
        folder: Where to.
        order: Positions of the rows in the order in which they are encoded.
        chunk_rows: Rows of a chunk.
    """

    def __init__(self, folder: Path, order: NDArray[np.int64], chunk_rows: int) -> None:
        self._folder = folder
        self._order = order
        self._chunk_rows = chunk_rows

    def holds(self, chunk: int) -> bool:
        """Whether a chunk was encoded by an earlier run.

        Args:
            chunk: Its number.

        Returns:
            True where its file is there.
        """
        return self._part(chunk).is_file()

    def add(self, chunk: int, positions: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        """Write the vectors of one chunk.

        Args:
            chunk: Its number.
            positions: Unused; the order says them.
            vectors: One a row.
        """
        unfinished = self._part(chunk).with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.save(file, vectors)
        os.replace(unfinished, self._part(chunk))

    def finish(self, state: PartialState) -> NDArray[np.float16]:
        """Put the chunks of all processes into one file, in the order of the dataset.

        Args:
            state: The processes.

        Returns:
            Shape (N, D), mapped into memory, read-only.
        """
        state.wait_for_everyone()
        if state.is_main_process:
            self._merge()
        state.wait_for_everyone()
        return np.load(self._folder / FILE, mmap_mode="r")

    def _merge(self) -> None:
        width = np.load(self._part(0), mmap_mode="r").shape[1]
        unfinished = self._folder / f"{FILE}.unfinished"
        shape = (len(self._order), width)
        whole = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, len(self._order), self._chunk_rows):
            part = np.load(self._part(start // self._chunk_rows))
            whole[self._order[start : start + self._chunk_rows]] = part
        whole.flush()
        os.replace(unfinished, self._folder / FILE)
        shutil.rmtree(self._folder / PARTS, ignore_errors=True)  # they have been read

    def _part(self, chunk: int) -> Path:
        return self._folder / PARTS / f"{chunk:06d}.npy"


def share(whole: NDArray[np.float16], state: PartialState) -> NDArray[np.float16]:
    """Add up what processes hold; each row is zero in all but one of them.

    Args:
        whole: Shape (N, D).
        state: The processes.

    Returns:
        The sum, in place.
    """
    if state.num_processes == 1:
        return whole
    own = torch.from_numpy(whole.reshape(-1).view(np.uint8))  # bytes: no value is rounded, and every backend adds them
    for start in range(0, len(own), SHARED_BYTES):
        piece = own[start : start + SHARED_BYTES]
        piece.copy_(reduce(piece.to(state.device), "sum").cpu())
    return whole


def open_folder(folder: Path, settings: Mapping[str, Any], state: PartialState) -> NDArray[np.float16] | None:
    """Make a folder for vectors, or find what an earlier run left in it.

    Args:
        folder: A new one, or that of an earlier run.
        settings: What the vectors depend on.
        state: The processes.

    Returns:
        The vectors, mapped into memory, where they are all there; None where some are missing.

    Raises:
        ShrinkError: If it holds something else.
    """
    settings = json.loads(json.dumps({"format": FORMAT, **settings}))
    notes = folder / SETTINGS
    if notes.is_file():
        there = json.loads(notes.read_text(encoding="utf-8"))
        if different := sorted(name for name in {*there, *settings} if there.get(name) != settings.get(name)):
            raise ShrinkError(
                f"`output_dir` must be a new folder or hold embeddings of the same rows and settings, but {folder} "
                f"was made with others: {', '.join(different)}. Choose another folder, or delete this one."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ShrinkError(
            f"`output_dir` must be a new folder or hold embeddings, but {folder} holds other files. Choose another."
        )
    state.wait_for_everyone()  # all have seen the same folder
    if state.is_main_process and not (folder / FILE).is_file():
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{SETTINGS}.unfinished"
        unfinished.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, notes)
    state.wait_for_everyone()
    return np.load(folder / FILE, mmap_mode="r") if (folder / FILE).is_file() else None


def save_whole(folder: Path, vectors: NDArray[np.float16], state: PartialState) -> NDArray[np.float16]:
    """Write vectors that were made in one go.

    Args:
        folder: Opened by `open_folder`.
        vectors: Shape (N, D).
        state: The processes.

    Returns:
        The same, mapped into memory.
    """
    if state.is_main_process:
        unfinished = folder / f"{FILE}.unfinished"
        with unfinished.open("wb") as file:
            np.save(file, vectors)
        os.replace(unfinished, folder / FILE)
        (folder / PARTS).rmdir()
    state.wait_for_everyone()
    return np.load(folder / FILE, mmap_mode="r")
