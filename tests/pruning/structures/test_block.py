"""Tiles, against a loop over them."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.targets import as_rows
from tests.architectures.models import tiny_model
from tests.pruning.structures.laying import fingerprint, lay


@pytest.mark.parametrize("module", [nn.Linear(12, 6), Conv1D(6, 12)], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (3, 3), (1, 12), (6, 1), (1, 1)])
def test_a_tile_is_outputs_by_inputs(module, rows, columns):
    structure = lay(nn.Sequential(module), f"block:{rows}x{columns}")
    scores = torch.randn(module.weight.shape)
    ((name, units),) = structure.unit_scores(lambda _: scores)
    assert units.shape == (6 // rows, 12 // columns)
    kept = {name: torch.rand(units.shape) > 0.5}
    mask = as_rows(module, structure.masks(kept, lambda _: scores)[name])
    for i in range(6 // rows):
        for j in range(12 // columns):
            tile = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            assert units[i, j].item() == pytest.approx(as_rows(module, scores)[tile].sum().item(), abs=1e-5)
            assert (mask[tile] == kept[name][i, j]).all()


@pytest.mark.parametrize("size", ["16x8", "8x16"])
def test_weights_that_it_does_not_divide_are_refused(size):
    model = tiny_model("bert")
    before = fingerprint(model)
    with pytest.raises(ShrinkError, match="must divide the outputs and inputs of every target") as error:
        lay(model, f"block:{size}")
    assert f'got "block:{size}" for bert.encoder.layer.0.' in str(error.value)
    assert "40" in str(error.value)
    assert fingerprint(model) == before
