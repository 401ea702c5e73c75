import numpy as np
import pytest
from datasets import Dataset

from hf_shrink import ShrinkError
from hf_shrink.dataset_distillation.budget import Budget, read_budget, rows_of_each, share_out
from hf_shrink.dataset_distillation.strata import find_strata


def strata(*sizes):
    labels = [name for name, size in enumerate(sizes) for _ in range(size)]
    return find_strata(Dataset.from_dict({"label": labels}), "label")


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        (0.1, Budget(share=0.1)),
        (1.0, Budget(share=1.0)),
        (np.float32(0.5), Budget(share=0.5)),
        (1, Budget(rows=1)),
        (np.int64(5000), Budget(rows=5000)),
        ({"per_class": 50}, Budget(per_class=50)),
        ({"tokens": 2_000_000}, Budget(tokens=2_000_000)),
    ],
)
def test_what_users_write(written, budget):
    assert read_budget(written) == budget


@pytest.mark.parametrize(
    "written",
    [0, -1, 0.0, -0.1, 1.5, float("nan"), True, "10%", None, {}, {"rows": 5}, {"per_class": 0}, {"tokens": 0.5},
     {"per_class": 1, "tokens": 2}],
)  # fmt: skip
def test_anything_else_is_refused(written):
    with pytest.raises(ShrinkError, match="`budget` must be a share in"):
        read_budget(written)


def test_rows_go_to_classes_in_proportion_the_largest_remainders_first():
    assert share_out(10, np.array([50, 30, 20])).tolist() == [5, 3, 2]
    assert share_out(11, np.array([50, 30, 20])).tolist() == [6, 3, 2]  # exact: 5.5, 3.3, 2.2
    assert share_out(10, np.array([33, 33, 34])).tolist() == [3, 3, 4]


def test_no_class_is_rounded_to_nothing():
    assert share_out(10, np.array([1000, 3, 2])).tolist() == [8, 1, 1]


@pytest.mark.parametrize("seed", range(30))
def test_the_budget_is_met_to_the_row(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 10 ** generator.integers(1, 5), generator.integers(1, 60))
    total = int(generator.integers(len(sizes), sizes.sum() + 1))
    counts = share_out(total, sizes)
    assert counts.sum() == total
    assert (counts >= 1).all()
    assert (counts <= sizes).all()
    fair = sizes * total / sizes.sum()
    assert (np.abs(counts - fair) < 1).all() or (fair < 1).any()  # within a row of its share, unless some were lifted


def test_a_share_is_one_of_the_rows_given():
    assert rows_of_each(Budget(share=0.1), 200, strata(60, 40)).tolist() == [12, 8]  # half of the 200 went before


def test_rows_a_class():
    assert rows_of_each(Budget(per_class=3), 10, strata(4, 6)).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Budget(rows=11), r"in \[2, 10\] rows.*got 11 rows. Write"),
        (Budget(rows=1), "one for each of the 2 classes"),
        (Budget(share=0.05), "got 5 % = 1 rows"),
        (Budget(per_class=5), "at most the rows of the smallest class, 4 of '0', got 5 rows a class"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(budget, says):
    with pytest.raises(ShrinkError, match=says):
        rows_of_each(budget, 20, strata(4, 6))
