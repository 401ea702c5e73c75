"""What is refused before any work."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerFast

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.cuts import build_skeleton, check_plain
from hf_shrink.pruning.vocabulary.definition import Definition
from hf_shrink.pruning.vocabulary.embedding_rows import check_twin, token_embeddings


def check_tokenizer(argument: str, tokenizer: Any) -> None:
    """Refuse anything but a fast tokenizer.

    Args:
        argument: What the user calls it.
        tokenizer: What was given.

    Raises:
        ShrinkError: If it is none.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ShrinkError(
            f"`{argument}` must be a fast tokenizer, got {type(tokenizer).__name__}. Load the model's own with "
            "AutoTokenizer.from_pretrained(); convert a slow one once with its Fast class."
        )


def check_counts(**counts: Any) -> None:
    """Refuse counts below 1.

    Args:
        **counts: By argument.

    Raises:
        ShrinkError: If one is no whole number from 1 on.
    """
    for argument, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ShrinkError(f"`{argument}` must be a whole number from 1 on, got {value!r}. Leave it out for usual.")


def find_tokens(keep: Any, definition: Definition) -> set[int]:
    """Look up tokens that are to stay.

    Args:
        keep: The tokens.
        definition: Of the tokenizer.

    Returns:
        Their ids.

    Raises:
        ShrinkError: If one is none of the tokenizer's.
    """
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise ShrinkError(f"`keep` must be a list of tokens, got {keep!r}. Write [{keep!r}] for one token.")
    found = set()
    for token in keep:
        if token not in definition.ids:
            raise ShrinkError(
                f"`keep` must name tokens of the tokenizer, got {token!r}, which is none. Write them as "
                "tokenizer.tokenize() gives them, such as 'Ġword' or '▁word' where a space comes first."
            )
        found.add(definition.ids[token])
    return found


def check_model(model: Any, definition: Definition) -> None:
    """Refuse a model whose rows cannot be cut, or not for this tokenizer.

    Args:
        model: What was given.
        definition: Of its tokenizer.

    Raises:
        ShrinkError: If it has fewer rows than the tokenizer has ids.
    """
    check_plain(model, "cut")
    rows, largest = len(token_embeddings(model).get_parameter("weight")), max(definition.tokens)
    if largest >= rows:
        raise ShrinkError(
            f"`tokenizer` must have ids below {rows}, the rows of the model's embeddings, got {largest}. "
            "Load the model's own, or call model.resize_token_embeddings() and train the new tokens first."
        )
    check_twin(model, build_skeleton(model, {}))
