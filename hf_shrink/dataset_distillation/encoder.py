"""Rows become vectors of unit length: through a model, or without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray
from transformers.utils import logging

from hf_shrink.dataset_distillation.dealt_batches import deal_batches, longest_first, processes
from hf_shrink.dataset_distillation.embeddings import unit_rows
from hf_shrink.dataset_distillation.encoded_parts import InFolder, InMemory, open_folder, save_whole, share
from hf_shrink.dataset_distillation.encoder_model import Encoder, load_encoder
from hf_shrink.dataset_distillation.plain_embeddings import embed_pixels, embed_texts, holds_images, joined_texts
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import TOKENIZED, find_columns
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.datasets import load_rows
from hf_shrink.inputs.fingerprints import rows_fingerprint, weights_fingerprint
from hf_shrink.inputs.models import base_folder
from hf_shrink.inputs.packaged import packaged_minilm

logger = logging.get_logger(__name__)
USUAL_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CHUNK = 16  # batches that are written together: what a run that is killed has to do again
READ = 10_000  # rows looked at in one go


def encode(
    dataset: Any,
    encoder: Any = None,
    *,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    processing_class: Any = None,
    batch_size: int = 64,
    max_length: int | None = None,
    pooling: str | None = None,
    output_dir: str | Path | None = None,
    seed: int = 0,
) -> NDArray[np.float16]:
    """Give each row a vector of unit length.

    Rows are sorted by length and cut into batches before anything runs, and whole batches are dealt out: under
    `accelerate launch` each process reads its share, the result is in the order of the dataset, and each batch holds
    the same rows whatever the number of processes. Vectors are computed in the precision of the model's weights and
    kept in half precision.

    Pairs are read as one, as the tokenizer joins them. Rows that are tokenised are read as they are, unless
    `text_column` names their text. Sounds must be prepared (`input_values`, `input_features`), all of one length.

    Without an encoder, texts are read by all-MiniLM-L6-v2 where it is on this machine already (the package of the
    `quickstart` extra, or the Hub's cache), else by their words and letters: TF-IDF, reduced by a truncated SVD.
    Images are shrunk to 32 x 32 pixels. Nothing is downloaded.

    Args:
        dataset: A `Dataset`, or a path or Hub id.
        encoder: A transformers model, or a folder or Hub id of one or of a sentence-transformers model; an instance is
            put onto the accelerator, where there is one. A head is left out.
        split: Where the dataset has several.
        text_column: The column of texts, lists of words or images, or two for pairs; found where it is None.
        processing_class: What prepares the rows; loaded from where the encoder was if None and needed.
        batch_size: Rows that the encoder reads at once.
        max_length: Tokens to cut a text to; None takes what sentence-transformers notes, else the model's limit.
        pooling: One vector of those of the tokens: "mean", "cls", "last" or "max"; None takes what
            sentence-transformers notes, else "mean".
        output_dir: Folder for the vectors: the result is mapped into memory, and a run that was cut off goes on.
        seed: Of the SVD; with an encoder nothing is random.

    Returns:
        Shape (N, D). `check_embeddings` makes of it what selectors read.

    Raises:
        ShrinkError: If a row is empty or has no finite vector, the encoder cannot read the rows, or the folder holds
            something else.
    """
    check_counts(batch_size=batch_size, max_length=max_length)
    rows = load_rows(dataset, split).with_format(None)
    if not len(rows):
        raise ShrinkError("`dataset` must hold at least 1 row, got 0. Check the split and the filters before it.")
    if encoder is None and processing_class is not None:
        raise ShrinkError("`encoder` must be given with `processing_class`, got None. Give both or neither.")
    rows = _readable(rows, text_column, tokens_count=encoder is not None)
    folder, state = None if output_dir is None else Path(output_dir).expanduser(), processes()
    if encoder is None and not holds_images(rows):
        encoder = usual_encoder()
    if encoder is None:
        return _encode_plainly(rows, batch_size, seed, folder, state)
    loaded = load_encoder(
        encoder, rows, state.device, processing_class=processing_class, pooling=pooling, max_length=max_length
    )
    return _encode_by_model(rows, loaded, batch_size, folder, state)


def usual_encoder() -> Path | None:
    """The small model that stands in for one that is not named, where it is on this machine.

    Returns:
        Its folder, or None.
    """
    if (packaged := packaged_minilm()) is not None:
        return packaged
    cached = base_folder(USUAL_ENCODER)
    whole = cached is not None and all((cached / file).is_file() for file in ("model.safetensors", "tokenizer.json"))
    return cached if whole else None


# ---------------------------------------------------------------------- what is read
def _readable(rows: Dataset, text_column: str | Sequence[str] | None, *, tokens_count: bool) -> Dataset:
    """The columns that are read, each row of them filled."""
    tokens = sorted(set(TOKENIZED) & set(rows.column_names))
    if tokens and text_column is None and tokens_count:
        return rows
    if tokens and len(tokens) == len(rows.column_names):
        raise ShrinkError(
            f"`encoder` must be given for rows that hold {', '.join(tokens)} and no text. Give the model that they "
            "were prepared for."
        )
    raw = rows.remove_columns(tokens)
    columns = find_columns(raw, text_column=text_column, with_label=False)
    raw = raw.select_columns(list(columns.text))
    _check_filled(raw)
    return raw


def _check_filled(rows: Dataset) -> None:
    for number, table in enumerate(rows.with_format("arrow").iter(READ)):
        blank = [_blank(table.column(name)) for name in rows.column_names]
        missing = [pc.is_null(table.column(name)).to_numpy() for name in rows.column_names]
        empty = np.logical_and.reduce(blank) | np.logical_or.reduce(missing)  # one side of a pair may say nothing
        if empty.any():
            raise ShrinkError(
                f"`text_column` must be filled in every row, but row {number * READ + int(np.argmax(empty))} of "
                f"{' and '.join(rows.column_names)} is empty. Drop such rows with dataset.filter()."
            )


def _blank(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        blank = pc.equal(pc.list_value_length(column), 0)
    else:
        blank = pc.is_null(column)
    return pc.fill_null(blank, True).to_numpy()


# ---------------------------------------------------------------------- through a model
def _encode_by_model(
    rows: Dataset, encoder: Encoder, batch_size: int, folder: Path | None, state: PartialState
) -> NDArray[np.float16]:
    with state.main_process_first():
        prepared = encoder.prepare(rows)
    order, keep, chunk_rows = longest_first(prepared), None, batch_size
    if folder is not None:
        settings = {
            "rows": rows_fingerprint(prepared),
            "weights": weights_fingerprint(encoder.model),
            "pooling": encoder.pooling,
            "batch_size": batch_size,
        }
        if (there := open_folder(folder, settings, state)) is not None:
            return there
        chunk_rows = CHUNK * batch_size
        keep = InFolder(folder, order, chunk_rows)

    def vectors(batch: Mapping[str, Any], positions: NDArray[np.int64]) -> NDArray[np.float16]:
        return _to_half(encoder(batch).numpy(), positions)

    with encoder.ready():
        return deal_batches(
            prepared,
            order,
            encoder.collator(prepared),
            vectors,
            state,
            batch_size=batch_size,
            chunk_rows=chunk_rows,
            keep=keep or InMemory(len(rows)),
            title="Encoding",
        )


def _to_half(vectors: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.float16]:
    good = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    if not good.all():
        raise ShrinkError(
            f"`encoder` must give each row a finite direction, but row {positions[~good].min()} got NaN, infinity or "
            "zeros. Look at this row; a model in half precision may need float32."
        )
    return unit_rows(vectors).astype(np.float16)


# ---------------------------------------------------------------------- without one
def _encode_plainly(
    rows: Dataset, batch_size: int, seed: int, folder: Path | None, state: PartialState
) -> NDArray[np.float16]:
    if folder is not None:
        settings = {
            "rows": rows_fingerprint(rows),
            "method": "pixels" if holds_images(rows) else "tf-idf",
            "seed": seed,
        }
        if (there := open_folder(folder, settings, state)) is not None:
            return there
    with state.main_process_first():
        vectors = unit_rows(_plain(rows, batch_size, seed)).astype(np.float16)
    if folder is not None:
        return save_whole(folder, vectors, state)
    return share(vectors if state.is_main_process else np.zeros_like(vectors), state)


def _plain(rows: Dataset, batch_size: int, seed: int) -> NDArray[np.float32]:
    if holds_images(rows):
        return embed_pixels(rows, rows.column_names[0], batch_size)
    logger.warning(
        "No encoder is named and none is on this machine: rows are told apart by their words and letters (TF-IDF and "
        'a truncated SVD), not by what they mean. Install one with: pip install "hf_shrink[quickstart]".'
    )
    return embed_texts(joined_texts(rows), seed)
