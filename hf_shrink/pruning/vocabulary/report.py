"""What a smaller vocabulary does to texts that it was not chosen by."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tokenizers import Encoding
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from hf_shrink.pruning.vocabulary.checks import check_counts, check_tokenizer
from hf_shrink.pruning.vocabulary.corpus import Corpus
from hf_shrink.pruning.vocabulary.definition import Definition
from hf_shrink.pruning.vocabulary.token_counts import encode, plain_backend


@dataclass(frozen=True)
class VocabularyReport:
    """Two tokenizers on the same texts, special tokens around the rows included.

    Args:
        rows: How many texts.
        same_rows: Those of them with the same tokens.
        tokens_before: Tokens a row with the original tokenizer.
        tokens_after: Tokens a row with the pruned one.
        new_unknowns: Unknown tokens that the original does not give.
        tokens_kept: Size of the pruned vocabulary.
        tokens_total: Size of the original one.
    """

    rows: int
    same_rows: int
    tokens_before: float
    tokens_after: float
    new_unknowns: int
    tokens_kept: int
    tokens_total: int

    @property
    def inflation(self) -> float:
        """Tokens after over tokens before; what more there are costs time, and room in the context."""
        return self.tokens_after / self.tokens_before

    def to_dict(self) -> dict[str, Any]:
        """Make it JSON.

        Returns:
            Fields and the inflation.
        """
        return {**asdict(self), "inflation": self.inflation}

    def __str__(self) -> str:
        return (
            f"{self.tokens_kept:,} of {self.tokens_total:,} tokens; {100 * self.same_rows / self.rows:.1f} % of "
            f"{self.rows:,} rows as before; {self.tokens_after:.2f} tokens a row instead of {self.tokens_before:.2f} "
            f"({self.inflation:.3f}x); {self.new_unknowns:,} new unknowns"
        )


def vocabulary_report(
    tokenizer: PreTrainedTokenizerFast,
    pruned_tokenizer: PreTrainedTokenizerFast,
    held_out: Any,
    *,
    text_column: str | Sequence[str] | None = None,
    split: str | None = None,
    batch_size: int = 1000,
) -> VocabularyReport:
    """Compare a pruned tokenizer with the original on texts that it has not seen.

    Args:
        tokenizer: The original.
        pruned_tokenizer: What `prune_vocabulary` made of it.
        held_out: Texts, as `prune_vocabulary` takes its corpus; read once.
        text_column: The text's column, or two for pairs; found where it is left out.
        split: Which split, where there are several.
        batch_size: Rows tokenized at a time.

    Returns:
        The figures.
    """
    check_tokenizer("tokenizer", tokenizer)
    check_tokenizer("pruned_tokenizer", pruned_tokenizer)
    check_counts(batch_size=batch_size)
    definitions = [Definition(t.backend_tokenizer) for t in (tokenizer, pruned_tokenizer)]
    backends = [plain_backend(t.backend_tokenizer) for t in (tokenizer, pruned_tokenizer)]
    corpus = Corpus(held_out, text_column=text_column, split=split, batch_size=batch_size)
    rows, same, unknowns, totals = 0, 0, 0, [0, 0]
    with tqdm(total=corpus.rows, desc="Comparing tokens", unit=" rows", leave=False) as bar:
        for batch in corpus.batches():
            for old, new in zip(*(encode(backend, batch) for backend in backends), strict=True):
                same += _read(old, definitions[0]) == _read(new, definitions[1])
                totals = [totals[0] + len(old.ids), totals[1] + len(new.ids)]
                before, after = (_unknowns(e, d) for e, d in zip((old, new), definitions, strict=True))
                unknowns += max(0, after - before)
            rows += len(batch)
            bar.update(len(batch))
    kept, total = (len(definition.tokens) for definition in reversed(definitions))
    return VocabularyReport(rows, same, totals[0] / rows, totals[1] / rows, unknowns, kept, total)


def _read(encoding: Encoding, definition: Definition) -> list[tuple[str, bool]]:
    # Some models give an unknown word itself as its token.
    return [(token, i == definition.unknown) for token, i in zip(encoding.tokens, encoding.ids, strict=True)]


def _unknowns(encoding: Encoding, definition: Definition) -> int:
    return 0 if definition.unknown is None else encoding.ids.count(definition.unknown)
