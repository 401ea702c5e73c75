"""The definition of a fast tokenizer, as tokenizer.json holds it, with fewer tokens."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from hf_shrink.pruning.vocabulary.kinds import kind_of


class Definition:
    """A tokenizer's parts.

    Args:
        backend: The tokenizer; it stays as it is.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self.parts: dict[str, Any] = json.loads(backend.to_str())
        self.model: Mapping[str, Any] = self.parts["model"]
        self.kind = kind_of(self.model)

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Token of each id, added ones among them."""
        added = {token["id"]: token["content"] for token in self.parts["added_tokens"]}
        return {**self.kind.tokens(self.model), **added}

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each token."""
        return {token: i for i, token in self.tokens.items()}

    @property
    def unknown(self) -> int | None:
        """Id of the token for what the model does not know."""
        if "unk_id" in self.model:
            return self.model["unk_id"]
        return self.ids.get(self.model.get("unk_token") or "")

    def named_ids(self) -> set[int]:
        """Find the ids that the definition itself names.

        Returns:
            Those of added tokens, of the unknown one, of the special tokens around a row and of the padding.
        """
        named = {token["id"] for token in self.parts["added_tokens"]} | set(_ids_around(self.parts["post_processor"]))
        if self.parts["padding"] is not None:
            named.add(self.parts["padding"]["pad_id"])
        if self.unknown is not None:
            named.add(self.unknown)
        return named & self.tokens.keys()

    def number(self, kept: Iterable[int]) -> dict[int, int]:
        """Number the tokens that stay, without holes and in their order; added ones follow, as the backend wants it.

        Args:
            kept: Ids that stay.

        Returns:
            New id of each, in ascending order.
        """
        own = self.kind.tokens(self.model).keys()
        order = sorted(kept, key=lambda i: (i not in own, i))
        return {old: new for new, old in enumerate(order)}

    def cut(self, new_ids: Mapping[int, int]) -> dict[str, Any]:
        """Keep some tokens.

        Args:
            new_ids: New id of each id that stays.

        Returns:
            The parts of the smaller tokenizer.
        """
        added = [{**token, "id": new_ids[token["id"]]} for token in self.parts["added_tokens"]]
        padding = self.parts["padding"]
        return {
            **self.parts,
            "model": self.kind.cut(self.model, new_ids),
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "post_processor": _renumber(self.parts["post_processor"], new_ids),
            "padding": padding and {**padding, "pad_id": new_ids.get(padding["pad_id"], padding["pad_id"])},
        }


def _ids_around(processor: Mapping[str, Any] | None) -> Iterator[int]:
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        yield from _ids_around(inner)
    for token in processor.get("special_tokens", {}).values():
        yield from token["ids"]
    for end in ("cls", "sep"):
        if end in processor:
            yield processor[end][1]


def _renumber(processor: Mapping[str, Any] | None, new_ids: Mapping[int, int]) -> dict[str, Any] | None:
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [_renumber(inner, new_ids) for inner in processor["processors"]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**token, "ids": [new_ids[i] for i in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    for end in ("cls", "sep"):
        if end in processor:
            token, i = processor[end]
            changed[end] = [token, new_ids[i]]
    return changed
