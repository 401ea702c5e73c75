import numpy as np
import pytest
import torch

from hf_shrink.quantization.activation_histograms import histogram_of
from hf_shrink.quantization.activation_ranges import RANGES, minmax_range, mse_range, percentile_range

GENERATOR = torch.Generator().manual_seed(0)
NORMAL = torch.randn(20_000, 1, generator=GENERATOR, dtype=torch.float64)


def error(values, low, high):
    """Mean squared error of 8 bits over a range, value by value."""
    step = (high - low) / 255
    zero = np.rint(-low / step)
    levels = np.clip(np.rint(values / step) + zero, 0, 255)
    return np.mean(((levels - zero) * step - values) ** 2)


def gelu(values):
    return torch.nn.functional.gelu(values)


CASES = {
    "normal": NORMAL,
    "outliers": torch.cat([NORMAL, torch.full((4, 1), 80.0)]),
    "both_sides": torch.cat([NORMAL, torch.tensor([[60.0], [-35.0]])]),
    "one_sided": gelu(3 * NORMAL),
    "positive": NORMAL.abs() + 5,
    "heavy": NORMAL**3,
}


@pytest.mark.parametrize("case", CASES)
def test_mse_is_as_good_as_the_best_of_many_ranges(case):
    values = CASES[case].numpy()
    low, high = mse_range(histogram_of(CASES[case]))
    ends = np.linspace(0.02, 1, 50)
    lowest, highest = min(values.min(), 0), max(values.max(), 0)
    best = min(error(values, lowest * a, highest * b) for a in ends for b in ends)
    assert low <= 0 <= high
    assert error(values, low, high) <= 1.15 * best


def test_large_values_that_matter_are_kept():
    values = torch.cat([NORMAL, torch.tensor([[80.0]])])
    found = {name: error(values.numpy(), *choose(histogram_of(values))) for name, choose in RANGES.items()}
    assert found["mse"] < 0.1 * found["percentile"]  # which cuts one value of 20,000 off


def test_large_values_that_hardly_come_out_are_clipped():
    values = torch.cat([NORMAL, 300 + NORMAL], 1)
    histogram = histogram_of(values, torch.tensor([1.0, 1e-9]))  # by how much comes out of an error in each channel
    low, high = mse_range(histogram)
    assert high < 10
    first = values[:, 0].numpy()
    assert error(first, low, high) < 0.01 * error(first, *minmax_range(histogram))
    assert mse_range(histogram_of(values))[1] > 290


def test_minmax_is_what_was_met_and_zero():
    assert minmax_range(histogram_of(torch.tensor([[-1.5, 4.0]]))) == (-1.5, 4.0)
    assert minmax_range(histogram_of(torch.tensor([[2.0, 4.0]]))) == (0.0, 4.0)
    assert minmax_range(histogram_of(torch.tensor([[-2.0, -1.0]]))) == (-2.0, 0.0)


def test_percentile_leaves_a_share_beyond_either_end():
    values = torch.linspace(-1, 3, 100_001)[:, None]
    low, high = percentile_range(histogram_of(values))
    expected = np.quantile(values.numpy(), [0.00005, 0.99995])
    assert [low, high] == pytest.approx(expected, rel=0.005)
    rare = torch.cat([values, torch.full((3, 1), 1e6)])
    assert percentile_range(histogram_of(rare))[1] == pytest.approx(3.0, rel=0.005)


@pytest.mark.parametrize("choose", RANGES.values())
def test_ranges_never_reach_beyond_what_was_met_and_may_be_empty(choose):
    low, high = choose(histogram_of(NORMAL[:50]))
    assert NORMAL[:50].float().min() <= low <= 0 <= high <= NORMAL[:50].float().max()
    assert choose(histogram_of(torch.zeros(3, 2))) == (0.0, 0.0)
