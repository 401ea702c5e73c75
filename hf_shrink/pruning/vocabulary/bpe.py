"""BPE: pairs merged one after the other, in the order of the merges."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from hf_shrink.pruning.vocabulary.word_piece import Model, cut_vocabulary, tokens_of

Pair = tuple[str, str]
BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))  # of byte fallback


def needed_parts(model: Model, kept: Iterable[int], seen: Iterable[int]) -> set[int]:
    """Find what kept tokens are merged from, the alphabet of bytes, and single characters.

    A token's own text is merged as it is within any word that it comes out of: no merge crosses its borders there,
    and those within follow the same order. So the symbols on the way are found from the token alone.

    Args:
        model: A BPE model.
        kept: Ids that stay.
        seen: Ids that the corpus uses; their characters stay.

    Returns:
        Ids of the symbols that come up on the way, and of the alphabet.
    """
    tokens, vocabulary = tokens_of(model), model["vocab"]
    pairs = _pairs(model)
    affixed = bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
    parts = set(_alphabet(model))
    parts.update(c for i in seen if i in tokens for c in tokens[i])
    if affixed:
        parts.update(_all_parts([tokens[i] for i in kept if i in tokens], pairs, model))
    else:
        ranks = {pair: rank for rank, pair in enumerate(pairs)}
        for i in kept:
            parts.update(_parts(tokens.get(i, ""), ranks))
    return {vocabulary[part] for part in parts if part in vocabulary}


def cut_merges(model: Model, new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Keep some tokens, and the merges whose two parts and result stay, in their order.

    Args:
        model: A BPE model.
        new_ids: New id of each id that stays.

    Returns:
        The smaller model.
    """
    smaller = cut_vocabulary(model, new_ids)
    there = smaller["vocab"]
    merges = zip(model["merges"], _pairs(model), strict=True)
    smaller["merges"] = [
        merge for merge, (a, b) in merges if a in there and b in there and _merged(a, b, model) in there
    ]
    return smaller


def _pairs(model: Model) -> list[Pair]:
    # Files of older versions write a pair as one string.
    split = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(a, b) for a, b in split]


def _merged(a: str, b: str, model: Model) -> str:
    return a + b[len(model.get("continuing_subword_prefix") or "") :]


def _alphabet(model: Model) -> Iterable[str]:
    """What spells out any text: the characters that stand for bytes, and the bytes of byte fallback."""
    return BYTES.union(ByteLevel.alphabet()) if model.get("byte_fallback") else ByteLevel.alphabet()


def _parts(token: str, ranks: Mapping[Pair, int]) -> set[str]:
    """All symbols that come up while a token is merged from its characters."""
    symbols = list(token)
    parts = set(symbols)
    while len(symbols) > 1:
        ranked = [
            (ranks[pair], at) for at, pair in enumerate(zip(symbols, symbols[1:], strict=False)) if pair in ranks
        ]
        if not ranked:
            break
        _, at = min(ranked)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        parts.add(symbols[at])
    return parts


def _all_parts(tokens: list[str], pairs: list[Pair], model: Model) -> set[str]:
    """The parts of all merges that lead to the tokens, where prefix or suffix hide the characters."""
    leading: dict[str, list[Pair]] = {}
    for a, b in pairs:
        leading.setdefault(_merged(a, b, model), []).append((a, b))
    parts, open_ = set[str](), list(tokens)
    while open_:
        for part in {part for pair in leading.get(open_.pop(), ()) for part in pair} - parts:
            parts.add(part)
            open_.append(part)
    return parts
