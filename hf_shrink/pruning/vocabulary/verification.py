"""Whether two tokenizers find the same tokens."""

from collections.abc import Mapping

from tokenizers import Encoding, Tokenizer
from tqdm.auto import tqdm

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.corpus import Corpus, Row
from hf_shrink.pruning.vocabulary.token_counts import encode

SHOWN = 80  # characters of a row in an error


def check_tokens(
    before: Tokenizer, after: Tokenizer, corpus: Corpus, new_ids: Mapping[int, int], *, complete: bool
) -> None:
    """Refuse a smaller tokenizer that reads a row of the corpus otherwise.

    Args:
        before: The backend as it was, which neither cuts nor pads.
        after: The new one, likewise.
        corpus: The texts.
        new_ids: New id of each token that stays.
        complete: Whether every token of the corpus stays; otherwise rows with another one are passed over.

    Raises:
        ShrinkError: If it reads one otherwise, or the corpus is another the second time.
    """
    total = None if corpus.once else corpus.rows
    with tqdm(total=total, desc="Checking tokens", unit=" rows", leave=False) as bar:
        for batch in corpus.batches():
            for row, old, new in zip(batch, encode(before, batch), encode(after, batch), strict=True):
                gone = [token for i, token in zip(old.ids, old.tokens, strict=True) if i not in new_ids]
                if not gone:
                    _check_row(row, old, new, new_ids)
                elif complete:
                    raise ShrinkError(
                        f"`corpus` must give the same rows each time it is read, got {_start(row)} with the token "
                        f"{gone[0]!r}, which did not come up at first. Give a list, or a Dataset, or an iterator that "
                        "can be read only once."
                    )
            bar.update(len(batch))


def _check_row(row: Row, old: Encoding, new: Encoding, new_ids: Mapping[int, int]) -> None:
    if old.tokens == new.tokens and [new_ids[i] for i in old.ids] == new.ids:
        return
    raise ShrinkError(
        f"`tokenizer` must read the corpus as before with the tokens that stay, got {new.tokens[:12]} and not "
        f"{old.tokens[:12]} for {_start(row)}. Its class may build another tokenizer when it is loaded: make it a "
        "PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, …) first. BPE dropout must be off."
    )


def _start(row: Row) -> str:
    text = repr(row)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
