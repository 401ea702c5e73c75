import pytest
import torch

from hf_shrink.quantization.smoothing import smoothing_factors

INPUTS, WEIGHTS = torch.tensor([100.0, 1.0, 2.0]), torch.tensor([0.1, 0.4, 0.1])


def test_factors_are_those_of_the_paper():
    expected = WEIGHTS**0.2 / INPUTS**0.8  # Xiao et al., equation 4, inverted
    expected = expected / expected.prod() ** (1 / 3)
    torch.testing.assert_close(smoothing_factors(INPUTS, WEIGHTS, 0.8), expected)


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_more_of_it_makes_channels_more_alike(strength):
    weaker, stronger = (INPUTS * smoothing_factors(INPUTS, WEIGHTS, s) for s in (strength - 0.25, strength))
    assert stronger.max() / stronger.min() < weaker.max() / weaker.min()
    assert (INPUTS * smoothing_factors(INPUTS, WEIGHTS, 1.0)).std() < 1e-5


def test_nothing_is_handed_over_at_zero():
    assert smoothing_factors(INPUTS, WEIGHTS, 0.0).tolist() == [1, 1, 1]


def test_channels_that_are_never_used_are_not_blown_up():
    factors = smoothing_factors(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]), 0.5)
    assert factors.isfinite().all()
    assert factors.max() / factors.min() < 1001
    assert smoothing_factors(torch.zeros(2), torch.zeros(2), 0.5).tolist() == [1, 1]
