"""What every method does, the registered ones and those to come."""

import inspect

import numpy as np
import pytest
from datasets import Dataset
from threadpoolctl import threadpool_limits

from hf_shrink.dataset_distillation.duplicate_methods import DUPLICATE_METHODS
from hf_shrink.dataset_distillation.duplicates import find_duplicates
from tests.dataset_distillation.near_rows import directions, jaccard, sentences

ROWS = 300
TEXTS = sentences(ROWS)
COPIES = {50: 7, 120: 7, 299: 31}  # a row and the earlier one that it repeats
for copy, original in COPIES.items():
    TEXTS[copy] = "  " + TEXTS[original].upper()
VECTORS = directions(ROWS)
VECTORS[list(COPIES)] = VECTORS[list(COPIES.values())]


@pytest.fixture(params=list(DUPLICATE_METHODS))
def method(request):
    return DUPLICATE_METHODS[request.param]


def search(method, texts=TEXTS, vectors=VECTORS, **more):
    embeddings = {"embeddings": vectors} if method.facts["reads"] == "embeddings" else {}
    return find_duplicates(Dataset.from_dict({"text": texts}), method.name, **{"threshold": 0.8, **embeddings, **more})


def alike(method, a, b):
    if method.facts["reads"] == "embeddings":
        return float(VECTORS[a].astype(np.float64) @ VECTORS[b].astype(np.float64))
    return jaccard(*(" ".join(TEXTS[row].casefold().split()) for row in (a, b)))


@pytest.mark.parametrize("keep", ["first", "central"])
def test_whoever_goes_is_near_the_row_that_stands_for_it(method, keep):
    found = search(method, keep=keep)
    assert sorted([*found.kept, *found.removed]) == list(range(ROWS))
    assert len(found) >= len(COPIES)
    assert set(found.stand_ins) <= set(found.kept)
    for row, stand_in, similarity in zip(found.removed, found.stand_ins, found.similarity, strict=True):
        assert similarity >= 0.8
        assert similarity == pytest.approx(alike(method, row, stand_in), abs=1e-6)


@pytest.mark.parametrize("keep", ["first", "central"])
def test_of_the_copies_of_a_row_one_stays_or_another_stands_for_all(method, keep):
    found = search(method, keep=keep)
    stands_for = dict(zip(found.removed.tolist(), found.stand_ins.tolist(), strict=True))
    for copy, original in COPIES.items():
        assert stands_for.get(copy, copy) == stands_for.get(original, original)
        assert {copy, original} & set(stands_for)


def test_the_first_of_two_copies_stays(method):
    found = search(method, threshold=1.0)
    assert dict(zip(found.removed.tolist(), found.stand_ins.tolist(), strict=True)).items() >= COPIES.items()
    assert (found.similarity == 1).all()


def test_rows_that_are_unlike_all_stay(method):
    texts = [chr(97 + number % 26) * (6 + number) for number in range(20)]
    assert not len(search(method, texts, np.eye(20)))


def test_the_kind_of_input_and_the_number_of_threads_change_nothing(method):
    found = []
    for threads, vectors in ((1, VECTORS), (2, VECTORS), (2, VECTORS.tolist()), (1, VECTORS.astype(np.float64))):
        with threadpool_limits(threads):
            found.append(search(method, vectors=vectors, keep="central"))
    for other in found[1:]:
        for name in ("kept", "removed", "stand_ins", "similarity"):
            assert np.array_equal(vars(found[0])[name], vars(other)[name])


def test_it_is_documented(method):
    assert method.paper.startswith(("arXiv:", "https://doi.org/"))
    assert method.summary.endswith(").")
    assert method.facts["reads"] in ("texts", "embeddings")
    assert inspect.Parameter.empty not in method.options.values()
