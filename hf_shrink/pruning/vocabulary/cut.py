"""A model and its tokenizer cut to the tokens of a corpus."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.checks import check_counts, check_model, check_tokenizer, find_tokens
from hf_shrink.pruning.vocabulary.corpus import Corpus
from hf_shrink.pruning.vocabulary.definition import Definition
from hf_shrink.pruning.vocabulary.embedding_rows import cut_rows, fixed_padding, token_embeddings
from hf_shrink.pruning.vocabulary.token_counts import count_tokens, plain_backend
from hf_shrink.pruning.vocabulary.token_ids import configs_of, needed_ids
from hf_shrink.pruning.vocabulary.tokenizer_files import rebuild_tokenizer
from hf_shrink.pruning.vocabulary.verification import check_tokens

logger = logging.getLogger(__name__)


def prune_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Any,
    min_count: int = 1,
    keep: Sequence[str] = (),
    *,
    text_column: str | Sequence[str] | None = None,
    split: str | None = None,
    batch_size: int = 1000,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Cut a model's vocabulary down to the tokens that a corpus uses: embeddings, heads and tokenizer.

    Texts of the corpus are tokenized as before, and the logits for them stay the same. Other texts are tokenized with
    the tokens that are left: with more of them, or with unknown ones; `vocabulary_report` says how many. Special and
    added tokens stay, and those that the configs name, single characters of what was seen, the bytes that spell out
    any text, and what the tokenizer passes through on the way to the tokens that stay. Give texts as the model sees
    them: for a chat model with the chat template, and generated answers too.

    The corpus is read once to count, and once more to check that the new tokenizer finds the same tokens. An iterator
    that can be read only once is checked on 1,000 rows drawn at random. Neither pass holds the corpus in memory.

    Args:
        model: A transformers model of a known family that has token embeddings, without adapters; it stays as it is.
        tokenizer: The model's own fast tokenizer (WordPiece, BPE, Unigram or WordLevel); it stays as it is.
        corpus: A `Dataset`, a path or Hub id of one, an `IterableDataset`, or an iterable of texts, of pairs of
            texts (tuples) or of lists of words. Texts are not truncated.
        min_count: How often a token must come up to stay; above 1 rows with rarer tokens are tokenized otherwise.
        keep: Tokens that stay in any case, written as `tokenizer.tokenize()` gives them.
        text_column: The text's column, or two for pairs; found where it is left out.
        split: Which split, where the corpus has several.
        batch_size: Rows tokenized at a time.

    Returns:
        A smaller copy of the model in its mode, and a tokenizer of the same class. Both load in stock transformers.

    Raises:
        ShrinkError: If a token must keep an id that it cannot keep.
    """
    check_tokenizer("tokenizer", tokenizer)
    check_counts(min_count=min_count, batch_size=batch_size)
    definition = Definition(tokenizer.backend_tokenizer)
    wanted = find_tokens(keep, definition)
    check_model(model, definition)
    rows = Corpus(corpus, text_column=text_column, split=split, batch_size=batch_size)
    backend = plain_backend(tokenizer.backend_tokenizer)
    kept = _choose(model, tokenizer, definition, backend, rows, min_count, wanted)
    new_ids = definition.number(kept)
    padding = fixed_padding(model)
    if padding is not None and new_ids.get(padding) != padding:
        raise ShrinkError(
            f"`tokenizer` must have a token for each id up to {padding}, the padding's, from which "
            f"{type(model).__name__} counts positions, got fewer. Load the tokenizer that belongs to the model."
        )
    smaller_tokenizer = rebuild_tokenizer(tokenizer, definition.cut(new_ids), new_ids)
    after = plain_backend(smaller_tokenizer.backend_tokenizer)
    check_tokens(backend, after, rows, new_ids, complete=min_count == 1)
    smaller = cut_rows(model, [*new_ids, *_rows_without_token(model, definition)])
    logger.info("Kept %d of %d tokens.", len(new_ids), len(definition.tokens))
    return smaller, smaller_tokenizer


def _choose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    definition: Definition,
    backend: Tokenizer,
    rows: Corpus,
    min_count: int,
    wanted: set[int],
) -> set[int]:
    """The ids that stay."""
    kind, known = definition.kind, definition.tokens.keys()
    path = kind.path
    seen = count_tokens(
        backend,
        rows,
        max(definition.tokens) + 1,
        unknown=definition.unknown,
        path=None if path is None else partial(path, definition.model),
    )
    kept = {int(i) for i in (seen.counts >= min_count).nonzero()[0]}
    kept |= wanted | seen.on_the_way | definition.named_ids()
    kept |= (set(tokenizer.all_special_ids) | needed_ids(configs_of(model))) & known
    padding = fixed_padding(model)
    if padding is not None:
        kept |= set(range(padding + 1)) & known
    return kept | kind.needs(definition.model, kept, [int(i) for i in seen.counts.nonzero()[0]])


def _rows_without_token(model: PreTrainedModel, definition: Definition) -> list[int]:
    """Rows that a config names, and for which the tokenizer has no token."""
    rows = len(token_embeddings(model).get_parameter("weight"))
    return sorted(i for i in needed_ids(configs_of(model)) - definition.tokens.keys() if i < rows)
