"""Unigram: the pieces of the best total score."""

from collections.abc import Iterable, Mapping
from typing import Any

from hf_shrink.pruning.vocabulary.bpe import BYTES
from hf_shrink.pruning.vocabulary.word_piece import Model

FIRST_IDS = 10  # transformers 5 writes the unknown token's id into its classes: 2 for T5, 3 for XLM-R


def pieces_of(model: Model) -> dict[int, str]:
    """Look up what each id stands for.

    Args:
        model: A Unigram model.

    Returns:
        Piece of each id; the same one may come twice.
    """
    return {i: piece for i, (piece, _) in enumerate(model["vocab"])}


def needed_pieces(model: Model, kept: Iterable[int], seen: Iterable[int]) -> set[int]:
    """Find the piece of the lowest score, single characters, bytes, and what stands before the unknown token.

    An unknown character costs the lowest score and ten more: without that piece it would cost less, and come out
    where known pieces came out.

    Args:
        model: A Unigram model.
        kept: Unused: fewer rivals never change the best pieces.
        seen: Ids that the corpus uses; their characters stay.

    Returns:
        Their ids.
    """
    scores = [score for _, score in model["vocab"]]
    needed = {min(range(len(scores)), key=scores.__getitem__)}
    unknown = model["unk_id"]
    if unknown is not None:
        needed.update(range(unknown + 1) if unknown < FIRST_IDS else (unknown,))
    pieces = pieces_of(model)
    letters = {c for i in seen if i in pieces for c in pieces[i]} | (BYTES if model.get("byte_fallback") else set())
    return needed | {i for i, piece in pieces.items() if piece in letters}


def cut_pieces(model: Model, new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Keep some pieces.

    Args:
        model: A Unigram model.
        new_ids: New id of each id that stays.

    Returns:
        The smaller model.
    """
    kept = sorted((i for i in pieces_of(model) if i in new_ids), key=new_ids.__getitem__)
    unknown = None if model["unk_id"] is None else new_ids[model["unk_id"]]
    return {**model, "vocab": [model["vocab"][i] for i in kept], "unk_id": unknown}
