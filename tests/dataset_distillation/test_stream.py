import numpy as np
import pytest
from datasets import ClassLabel, Features, IterableDataset, Value

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.stream import sample_stream

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})


def stream(rows, passes=None):
    def generate():
        if passes is not None:
            passes.append(1)
        for i in range(rows):
            yield {"text": str(i), "label": i % 2}

    return IterableDataset.from_generator(generate, features=FEATURES)


def test_a_short_stream_stays_whole():
    sample = sample_stream(stream(7), 10, seed=0)
    assert (sample.rows["text"][:], sample.seen) == ([str(i) for i in range(7)], 7)
    assert sample.rows.features == FEATURES


def test_a_long_one_is_read_once_and_sampled_evenly():
    passes, counts = [], np.zeros(100)
    for seed in range(100):
        sample = sample_stream(stream(100, passes), 20, seed)
        assert len(set(sample.positions.tolist())) == 20
        assert sample.rows["text"][:] == [str(i) for i in sample.positions]
        counts[sample.positions] += 1
    assert len(passes) == 100
    # Each row is kept 20 times of 100 on average, with a deviation of 4; the first and the last are no exception.
    assert counts.min() > 4
    assert counts.max() < 36
    assert abs(counts[:10].mean() - 20) < 5
    assert abs(counts[-10:].mean() - 20) < 5


def test_memory_holds_no_more_than_the_sample():
    alive = []

    class Row(str):
        def __del__(self):
            alive.append(-1)

    class Stream:
        features, info = None, stream(1).info

        def __iter__(self):
            for i in range(1000):
                alive.append(1)
                most.append(sum(alive))
                yield {"text": Row(i)}

    most: list[int] = []
    sample_stream(Stream(), 10, seed=0)
    assert max(most) <= 12  # ten that stay, the one at hand and the one before


def test_an_empty_stream_is_refused():
    with pytest.raises(ShrinkError, match="the stream ended at once"):
        sample_stream(stream(0), 10, seed=0)
