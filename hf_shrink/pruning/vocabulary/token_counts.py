"""Which tokens a corpus uses, and how often."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tqdm.auto import tqdm

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.corpus import EMPTY, Corpus, Row, is_words

PathOf = Callable[[str], Iterable[int]]


@dataclass(frozen=True)
class TokenCounts:
    """What was seen.

    Args:
        counts: Shape (V,): how often each id came up; the special tokens around a row do not count.
        on_the_way: Ids that no row shows, and without which some row would be tokenized otherwise.
    """

    counts: NDArray[np.int64]
    on_the_way: frozenset[int]


def plain_backend(tokenizer: Tokenizer, definition: str | None = None) -> Tokenizer:
    """A backend of its own, which neither cuts nor pads.

    Args:
        tokenizer: The backend at hand; it stays as it is.
        definition: Its JSON, where it is known.

    Returns:
        The copy.
    """
    plain = Tokenizer.from_str(tokenizer.to_str() if definition is None else definition)
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = tokenizer.encode_special_tokens  # no part of the JSON
    return plain


def encode(backend: Tokenizer, rows: list[Row], *, special: bool = True) -> list[Encoding]:
    """Tokenize rows whole.

    Args:
        backend: What `plain_backend` gives.
        rows: All of one kind.
        special: Whether to put the special tokens around them.

    Returns:
        One encoding a row, without offsets, which take time.
    """
    return backend.encode_batch_fast(rows, is_pretokenized=is_words(rows[0]), add_special_tokens=special)


def count_tokens(
    backend: Tokenizer, corpus: Corpus, size: int, *, unknown: int | None, path: PathOf | None
) -> TokenCounts:
    """Count the tokens of a corpus in one pass.

    Args:
        backend: What `plain_backend` gives.
        corpus: The texts.
        size: V, one more than the largest id.
        unknown: Id of the unknown token.
        path: Which ids the model tries in vain before it gives a word up, for kinds that go from piece to piece.

    Returns:
        The counts.

    Raises:
        ShrinkError: If there is no text.
    """
    counts, on_the_way, rows = np.zeros(size, dtype=np.int64), set[int](), 0
    with tqdm(total=corpus.rows, desc="Counting tokens", unit=" rows", leave=False) as bar:
        for batch in corpus.batches():
            encodings = encode(backend, batch, special=False)
            ids = np.concatenate([np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings])
            counts += np.bincount(ids, minlength=size)
            if path is not None and unknown is not None:
                puzzling = [row for row, e in zip(batch, encodings, strict=True) if unknown in e.ids]
                on_the_way.update(i for word in _unknown_words(backend, puzzling, unknown) for i in path(word))
            rows += len(batch)
            bar.update(len(batch))
    if not counts.any():
        raise ShrinkError(EMPTY.format(f"{rows} rows without a token"))
    return TokenCounts(counts, frozenset(on_the_way))


def _unknown_words(backend: Tokenizer, rows: list[Row], unknown: int) -> Iterator[str]:
    """The words behind unknown tokens, as the model gets them."""
    for row in rows:
        first, second = row if isinstance(row, tuple) else (row, None)
        encoding = backend.encode(first, second, is_pretokenized=is_words(row))
        for index, (i, (start, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
            sequence = encoding.token_to_sequence(index)
            if i != unknown or sequence is None:
                continue
            text = row[sequence] if isinstance(row, tuple) else row
            word = encoding.word_ids[index]
            text = text if isinstance(text, str) else text[0 if word is None else word]
            text = text[start:end]
            yield text if backend.normalizer is None else backend.normalizer.normalize_str(text)
