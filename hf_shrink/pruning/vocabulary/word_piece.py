"""WordPiece: the longest piece first, from the left; and WordLevel, whose pieces are whole words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Model = Mapping[str, Any]  # the "model" of a tokenizer.json


def tokens_of(model: Model) -> dict[int, str]:
    """Look up what each id stands for.

    Args:
        model: With a vocabulary that maps tokens to ids.

    Returns:
        Token of each id.
    """
    return {i: token for token, i in model["vocab"].items()}


def cut_vocabulary(model: Model, new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Keep some tokens.

    Args:
        model: With a vocabulary that maps tokens to ids.
        new_ids: New id of each id that stays.

    Returns:
        The smaller model.
    """
    kept = {token: new_ids[i] for token, i in model["vocab"].items() if i in new_ids}
    return {**model, "vocab": dict(sorted(kept.items(), key=lambda item: item[1]))}


def needs_nothing(model: Model, kept: Iterable[int], seen: Iterable[int]) -> set[int]:
    """Find what whole words need beside themselves: nothing.

    Args:
        model: Unused.
        kept: Unused.
        seen: Unused.

    Returns:
        An empty set.
    """
    return set()


def needed_characters(model: Model, kept: Iterable[int], seen: Iterable[int]) -> set[int]:
    """Find the single characters of all that was seen, which spell a new word out where no longer piece is left.

    Args:
        model: A WordPiece model.
        kept: Unused: the longest piece that fits is still there.
        seen: Ids that the corpus uses.

    Returns:
        Ids of the characters, at a word's beginning and within.
    """
    tokens, vocabulary, prefix = tokens_of(model), model["vocab"], model["continuing_subword_prefix"]
    characters = {c for i in seen if i in tokens for c in tokens[i].removeprefix(prefix)}
    return {vocabulary[form] for c in characters for form in (c, prefix + c) if form in vocabulary}


def tried_pieces(model: Model, word: str) -> Iterator[int]:
    """Go through a word as the model does, up to where it gives up.

    A word is unknown if any part of it is. Without its longest beginning a shorter one would fit, and the word might
    not be unknown any more.

    Args:
        model: A WordPiece model.
        word: What the pre-tokenizer gives.

    Yields:
        Ids of the pieces before the one that fails.
    """
    if len(word) > model["max_input_chars_per_word"]:
        return
    start = 0
    while start < len(word):
        prefix = model["continuing_subword_prefix"] if start else ""
        pieces = ((end, prefix + word[start:end]) for end in range(len(word), start, -1))
        found = next(((end, model["vocab"][piece]) for end, piece in pieces if piece in model["vocab"]), None)
        if found is None:
            return
        start = found[0]
        yield found[1]
