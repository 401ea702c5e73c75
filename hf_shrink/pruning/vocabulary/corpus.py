"""A corpus of any size, read in batches."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import find_columns
from hf_shrink.inputs.datasets import load_rows

Row: TypeAlias = Any  # str, tuple of two str, list of words, or tuple of two such lists: what the backend encodes
PEEKED = 100  # rows of a stream in which the text column is looked for
SAMPLED = 1000  # rows of a corpus that can be read only once, kept to verify with
EMPTY = "`corpus` must hold text, got {}. Check the split, the text column and the filters."


class Corpus:
    """Texts, pairs of texts or lists of words.

    Args:
        corpus: A `Dataset`, a path or Hub id of one, a stream of rows, or an iterable of texts.
        text_column: The text's column, or two for pairs.
        split: Which one, where there are several.
        batch_size: Rows in a batch.
    """

    def __init__(
        self, corpus: Any, *, text_column: str | Sequence[str] | None, split: str | None, batch_size: int
    ) -> None:
        self._batch_size = batch_size
        self.rows: int | None = None
        self._table: Dataset | IterableDataset | None = None
        self._columns: tuple[str, ...] = ()
        self._texts: Iterable[Any] = ()
        self.once = False
        self._sample: list[Row] = []
        if isinstance(corpus, (Dataset, DatasetDict, str, Path)):
            self._read_table(load_rows(corpus, split), text_column)
        elif isinstance(corpus, (IterableDataset, IterableDatasetDict)):
            self._read_stream(_of_split(corpus, split), text_column)
        else:
            self._read_texts(corpus, text_column, split)

    def batches(self) -> Iterator[list[Row]]:
        """Read it.

        Yields:
            Up to `batch_size` rows. Of a corpus that can be read only once, the second time around a random sample.
        """
        if self.once and self._sample:
            yield self._sample
            return
        for batch in self._table_batches() if self._table is not None else self._text_batches():
            if batch:
                yield batch

    def _read_table(self, rows: Dataset, text_column: str | Sequence[str] | None) -> None:
        if not len(rows):
            raise ShrinkError(EMPTY.format("no rows"))
        self.rows, self._columns = len(rows), _text_columns(rows, text_column)
        self._table = rows.select_columns(list(self._columns))

    def _read_stream(self, stream: IterableDataset, text_column: str | Sequence[str] | None) -> None:
        head = list(stream.take(PEEKED))
        if not head:
            raise ShrinkError(EMPTY.format("no rows"))
        self._columns, self._table = _text_columns(Dataset.from_list(head), text_column), stream

    def _read_texts(self, corpus: Any, text_column: str | Sequence[str] | None, split: str | None) -> None:
        if not isinstance(corpus, Iterable) or isinstance(corpus, (bytes, Mapping)):
            raise ShrinkError(
                f"`corpus` must be a Dataset, a path, a Hub id or an iterable of texts, got {type(corpus).__name__}. "
                "Give one of these."
            )
        for argument, value in (("text_column", text_column), ("split", split)):
            if value is not None:
                raise ShrinkError(
                    f"`{argument}` must be left out for texts, which have none, got {value!r}. Leave it out."
                )
        texts = iter(corpus)
        first = list(islice(texts, 1))
        if not first:
            raise ShrinkError(EMPTY.format("no rows"))
        _check_row(first[0])
        self.once = texts is corpus
        self._texts = chain(first, texts) if self.once else corpus
        self.rows = len(corpus) if isinstance(corpus, Sequence) else None

    def _table_batches(self) -> Iterator[list[Row]]:
        assert self._table is not None
        for batch in self._table.iter(batch_size=self._batch_size):
            columns = [batch[column] for column in self._columns]
            for name, column in zip(self._columns, columns, strict=True):
                if None in column:
                    raise ShrinkError(
                        f"`corpus` must have text in every row, but {name!r} has an empty one. Drop such rows."
                    )
            rows = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
            yield [_check_row(row) for row in rows]

    def _text_batches(self) -> Iterator[list[Row]]:
        texts, lot, seen = iter(self._texts), random.Random(0), 0
        while batch := [_check_row(text) for text in islice(texts, self._batch_size)]:
            for row in batch if self.once else ():
                seen += 1  # each row so far is in the sample with the same chance
                if len(self._sample) < SAMPLED:
                    self._sample.append(row)
                elif (place := lot.randrange(seen)) < SAMPLED:
                    self._sample[place] = row
            yield batch


def is_words(row: Row) -> bool:
    """Whether a row is split into words already."""
    return isinstance(row[0] if isinstance(row, tuple) else row, list)


def _of_split(corpus: IterableDataset | IterableDatasetDict, split: str | None) -> IterableDataset:
    if isinstance(corpus, IterableDataset):
        if split is not None and split != str(corpus.split):
            raise ShrinkError(
                f"`split` must be left out for a stream of one split ({corpus.split}), got {split!r}. Leave it out."
            )
        return corpus
    if split is None and len(corpus) == 1:
        return next(iter(corpus.values()))
    if split not in corpus:
        raise ShrinkError(f"`split` must be one of {list(corpus)}, got {split!r}. Choose one of these.")
    return corpus[split]


def _text_columns(rows: Dataset, text_column: str | Sequence[str] | None) -> tuple[str, ...]:
    columns = find_columns(rows, text_column=text_column).text
    if not columns:
        raise ShrinkError(
            f"`corpus` must hold text, got rows that are tokenised already: {rows.column_names}. Give the texts, or "
            "name their `text_column`."
        )
    if len(columns) > 2:
        raise ShrinkError(f"`text_column` must be one column or two, got {list(columns)}. Name one or a pair.")
    return columns


def _check_row(row: Any) -> Row:
    parts = row if isinstance(row, tuple) and len(row) == 2 else (row,)
    if all(isinstance(part, str) for part in parts):
        return row
    if all(isinstance(part, list) and all(isinstance(word, str) for word in part) for part in parts):
        return row
    raise ShrinkError(
        "`corpus` must give texts, pairs of texts or lists of words, got "
        f"{type(row).__name__}. Name the `text_column` of a Dataset, or give strings."
    )
