"""Wanda: weight times input norm, compared within each output."""

import pytest
import torch
from torch import nn

from hf_shrink.pruning.criteria import CRITERIA
from hf_shrink.pruning.criteria.wanda import wanda
from hf_shrink.pruning.one_shot import choose_masks
from hf_shrink.pruning.structures import make_structure


def test_value_by_hand():
    scores = wanda(torch.tensor([[-2.0, 1.0], [0.5, 3.0]]), torch.tensor([1.0, 4.0]))
    assert scores.tolist() == [[2.0, 4.0], [0.5, 12.0]]


def test_a_weight_stored_the_other_way_round_takes_the_norms_as_a_column():
    scores = wanda(torch.tensor([[-2.0, 0.5], [1.0, 3.0]]), torch.tensor([[1.0], [4.0]]))
    assert scores.tolist() == [[2.0, 0.5], [4.0, 12.0]]


def test_a_large_weight_on_a_silent_input_goes_first():
    # Magnitude alone would keep it.
    assert wanda(torch.tensor([[9.0, 0.1]]), torch.tensor([0.0, 1.0])).argmin() == 0


@pytest.mark.parametrize("sparsity", [0.25, 0.3, 0.5, 0.77])
def test_every_output_loses_the_same_share_however_small_its_weights(sparsity):
    # Compared over the module, the small output would lose everything, and only that.
    model = nn.Sequential(nn.Linear(16, 6), nn.Linear(6, 5))
    with torch.no_grad():
        model[0].weight[2] *= 1e-4
    structure = make_structure(model, "unstructured", ["Linear"], [])
    score = {name: wanda(p, torch.ones(p.shape[1])) for name, p in structure.parameters.items()}.__getitem__
    masks = choose_masks(model, structure, score, sparsity, CRITERIA["wanda"].facts["compares"])
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * total)
    for name, mask in masks.items():
        lost = (~mask).sum(1)
        assert (lost - sparsity * mask.shape[1]).abs().max() < 1
        for row, kept in zip(score(name), mask, strict=True):
            assert row[kept].min() > row[~kept].max()
