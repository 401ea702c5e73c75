"""Random: the same lot at every step, so that masks nest and processes agree."""

import torch

from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.worth import noise
from tests.pruning.loop import train_toy


def test_the_lot_depends_on_name_and_seed_alone():
    weight = torch.zeros(4, 5)
    first = noise("layer.weight", weight, 0)
    torch.manual_seed(9)
    assert torch.equal(first, noise("layer.weight", weight + 1, 0))
    assert not torch.equal(first, noise("other.weight", weight, 0))
    assert not torch.equal(first, noise("layer.weight", weight, 1))
    assert ((first >= 0) & (first < 1)).all()


def test_what_is_drawn_early_is_drawn_later():
    # A new lot at each choice would end in the same shares, and in another mask than the one that was trained.
    settings = {"final_sparsity": 0.6, "start_step": 0, "end_step": 8, "pruning_frequency": 2}
    _, early, _ = train_toy(PruningConfig("random", **settings), 8)
    _, late, _ = train_toy(PruningConfig("random", **{**settings, "final_sparsity": 0.9}), 8)
    assert all((early.masks[name] | ~late.masks[name]).all() for name in early.masks)
