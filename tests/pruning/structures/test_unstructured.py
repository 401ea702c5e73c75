"""Single weights."""

import torch

from tests.architectures.models import tiny_model
from tests.pruning.structures.laying import lay, magnitudes


def test_units_are_the_elements_as_they_are_stored():
    structure = lay(tiny_model("gpt2"), "unstructured")
    for name, scores in structure.unit_scores(magnitudes(structure)):
        assert torch.equal(scores, structure.parameters[name].detach().abs())
    name = "transformer.h.0.attn.c_attn.weight"
    kept = {each: torch.rand(weight.shape) > 0.5 for each, weight in structure.parameters.items()}
    assert torch.equal(structure.masks(kept, magnitudes(structure))[name], kept[name])
