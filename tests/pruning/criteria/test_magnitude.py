"""Magnitude: the absolute value, and nothing else."""

import torch

from hf_shrink.pruning.criteria.magnitude import magnitude


def test_value_by_hand():
    weight = torch.tensor([[-3.0, 2.0], [0.5, -0.0]])
    assert magnitude(weight, None).tolist() == [[3.0, 2.0], [0.5, 0.0]]


def test_a_large_negative_weight_is_not_taken_for_a_small_one():
    assert magnitude(torch.tensor([[-5.0, 1.0]]), None).argmin() == 1
