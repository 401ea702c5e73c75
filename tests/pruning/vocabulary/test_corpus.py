import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.vocabulary.corpus import SAMPLED, Corpus


def rows_of(corpus, **options):
    made = Corpus(corpus, **{"text_column": None, "split": None, "batch_size": 2, **options})
    return [row for batch in made.batches() for row in batch]


TABLE = Dataset.from_dict({"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": [0, 1, 0]})
PAIRS = [("a", "d"), ("b", "e"), ("c", "f")]


def test_every_form(tmp_path):
    TABLE.to_parquet(tmp_path / "train.parquet")
    assert rows_of(TABLE) == PAIRS
    assert rows_of(str(tmp_path / "train.parquet")) == PAIRS
    assert rows_of(DatasetDict(train=TABLE, test=TABLE.select([0])), split="test") == PAIRS[:1]
    assert rows_of(TABLE.to_iterable_dataset()) == PAIRS
    assert rows_of(IterableDatasetDict({"train": TABLE.to_iterable_dataset()})) == PAIRS
    assert rows_of(TABLE, text_column="sentence2") == ["d", "e", "f"]
    assert rows_of(["a", "b", "c"]) == ["a", "b", "c"]
    assert rows_of(text for text in "abc") == ["a", "b", "c"]
    assert rows_of([["two", "words"]]) == [["two", "words"]]
    assert rows_of(Dataset.from_dict({"tokens": [["two", "words"]]})) == [["two", "words"]]


def test_batches_are_no_larger_than_asked_for():
    made = Corpus(iter("abcde"), text_column=None, split=None, batch_size=2)
    assert [len(batch) for batch in made.batches()] == [2, 2, 1]


def test_a_stream_is_read_anew_and_an_iterator_sampled():
    stream = IterableDataset.from_generator(lambda: ({"text": str(i)} for i in range(5)))
    made = Corpus(stream, text_column=None, split=None, batch_size=2)
    assert [list(made.batches()) for _ in range(2)] == [[["0", "1"], ["2", "3"], ["4"]]] * 2
    made = Corpus((str(i) for i in range(3 * SAMPLED)), text_column=None, split=None, batch_size=500)
    assert made.once
    assert sum(len(batch) for batch in made.batches()) == 3 * SAMPLED
    (sample,) = made.batches()
    assert len(set(sample)) == SAMPLED
    assert sum(int(row) >= 2 * SAMPLED for row in sample) > SAMPLED / 5  # not just the first ones


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        ([], {}, "`corpus` must hold text, got no rows"),
        (iter(()), {}, "`corpus` must hold text, got no rows"),
        (TABLE.select([]), {}, "`corpus` must hold text, got no rows"),
        (IterableDataset.from_generator(lambda: iter(())), {}, "`corpus` must hold text, got no rows"),
        (7, {}, "an iterable of texts, got int"),
        ({"text": ["a"]}, {}, "an iterable of texts, got dict"),
        ([7], {}, "lists of words, got int"),
        (["a", None], {}, "lists of words, got NoneType"),
        (["a"], {"text_column": "text"}, "`text_column` must be left out for texts"),
        (["a"], {"split": "train"}, "`split` must be left out for texts"),
        (Dataset.from_dict({"text": ["a", None]}), {}, "'text' has an empty one"),
        (Dataset.from_dict({"input_ids": [[1, 2]]}), {}, "tokenised already"),
        (TABLE, {"text_column": ["sentence1", "sentence2", "label"]}, "one column or two"),
        (TABLE.to_iterable_dataset(), {"split": "test"}, "a stream of one split"),
        (IterableDatasetDict({"train": TABLE.to_iterable_dataset()}), {"split": "test"}, "`split` must be one of"),
    ],
)
def test_refusals(corpus, options, message):
    with pytest.raises(ShrinkError, match=message):
        rows_of(corpus, **options)
