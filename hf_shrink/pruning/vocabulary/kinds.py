"""The kinds of tokenizer models: what each needs beside the tokens that are seen, to find the same ones again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.bpe import cut_merges, needed_parts
from hf_shrink.pruning.vocabulary.unigram import cut_pieces, needed_pieces, pieces_of
from hf_shrink.pruning.vocabulary.word_piece import (
    Model,
    cut_vocabulary,
    needed_characters,
    needs_nothing,
    tokens_of,
    tried_pieces,
)


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Args:
        tokens: Token of each id.
        needs: From the model, the kept ids and the seen ones: which ids must stay beside the kept ones.
        cut: The model with those ids that have a new one.
        path: The ids that the model tries before it gives a word up, for a kind that goes from piece to piece.
    """

    tokens: Callable[[Model], dict[int, str]]
    needs: Callable[[Model, Iterable[int], Iterable[int]], set[int]]
    cut: Callable[[Model, Mapping[int, int]], dict[str, Any]]
    path: Callable[[Model, str], Iterator[int]] | None = None


KINDS: Mapping[str, Kind] = {
    "BPE": Kind(tokens_of, needed_parts, cut_merges),
    "Unigram": Kind(pieces_of, needed_pieces, cut_pieces),
    "WordLevel": Kind(tokens_of, needs_nothing, cut_vocabulary),
    "WordPiece": Kind(tokens_of, needed_characters, cut_vocabulary, tried_pieces),
}


def kind_of(model: Model) -> Kind:
    """The kind of a tokenizer's model.

    Args:
        model: The "model" of a tokenizer.json.

    Returns:
        Its kind.

    Raises:
        ShrinkError: If there is none that is known.
    """
    if model.get("type") not in KINDS:
        raise ShrinkError(
            f"`tokenizer` must have a model among {sorted(KINDS)}, got {model.get('type')}. "
            "Leave its vocabulary as it is."
        )
    return KINDS[model["type"]]
