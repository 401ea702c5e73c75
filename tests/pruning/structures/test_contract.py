"""What every structure in STRUCTURES must hold; a new one is covered when it is registered."""

import inspect
import re

import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.structures import STRUCTURES, parse_structure
from tests.architectures.models import tiny_model
from tests.pruning.structures.laying import apply, fingerprint, kept_all, lay, magnitudes

SMALLER = {"block": "block:4x8"}  # what users write, where the form's own example is too large for tiny models
FAMILIES = ("llama", "gpt2", "t5")
REFUSED = {("heads", "gpt2")}


def example(name):
    return re.match('"([^"]+)"', STRUCTURES[name].facts["form"])[1]


@pytest.fixture(params=[(name, family) for name in STRUCTURES for family in FAMILIES if (name, family) not in REFUSED])
def laid(request):
    name, family = request.param
    model = tiny_model(family)
    return model, lay(model, SMALLER.get(name, example(name)))


@pytest.fixture
def model(laid):
    return laid[0]


@pytest.fixture
def structure(laid):
    return laid[1]


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_it_names_its_paper_and_explains_itself(name):
    method = STRUCTURES[name]
    assert method.paper.startswith(("arXiv:", "https://"))
    assert method.summary.endswith(".")
    assert "Args:" in inspect.getdoc(method.function)
    assert "Returns:" in inspect.getdoc(method.function)


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_what_users_write_gives_its_options(name):
    method, options = parse_structure(example(name))
    assert method is STRUCTURES[name]
    assert options.keys() == method.options.keys()


def test_its_parameters_are_the_models_own(model, structure):
    own = dict(model.named_parameters())
    assert structure.parameters
    assert all(own[name] is parameter for name, parameter in structure.parameters.items())
    assert structure.scored
    assert len(set(structure.scored)) == len(structure.scored)
    assert set(structure.scored) == {name for name in structure.parameters if name.endswith("weight")}


def test_sets_come_in_the_same_order_with_the_same_scores(structure):
    first, second = (list(structure.unit_scores(magnitudes(structure))) for _ in range(2))
    assert [name for name, _ in first] == [name for name, _ in second]
    assert len({name for name, _ in first}) == len(first)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    assert all(scores.dtype == torch.float32 for _, scores in first)
    assert all(scores.numel() > 0 for _, scores in first)


def test_scores_are_worked_out_as_they_are_asked_for(structure):
    asked = []

    def score(name):
        asked.append(name)
        return magnitudes(structure)(name)

    sets = structure.unit_scores(score)
    assert asked == []
    next(sets)
    assert asked
    list(sets)
    assert sorted(asked) == sorted(structure.scored)  # each once


def test_every_weight_counts_once(structure):
    """With scores of one all over, the units together lose what the share says."""
    total = sum(structure.parameters[name].numel() for name in structure.scored)
    units = structure.unit_scores(lambda name: torch.ones_like(structure.parameters[name]))
    assert sum(scores.double().sum().item() for _, scores in units) == pytest.approx(structure.share * total)


def test_masks_are_bools_of_the_parameters_shape(structure):
    for value in (True, False):
        masks = structure.masks(kept_all(structure, value), magnitudes(structure))
        assert masks.keys() == structure.parameters.keys()
        for name, mask in masks.items():
            assert mask.dtype == torch.bool
            assert mask.shape == structure.parameters[name].shape
            assert mask.device == structure.parameters[name].device
            assert mask.is_contiguous()


def test_nothing_pruned_leaves_everything(structure):
    masks = structure.masks(kept_all(structure), magnitudes(structure))
    assert all(mask.all() for mask in masks.values())


def test_everything_pruned_leaves_its_share(structure):
    masks = structure.masks(kept_all(structure, False), magnitudes(structure))
    zeros = sum((~masks[name]).sum().item() for name in structure.scored)
    assert zeros == structure.share * sum(masks[name].numel() for name in structure.scored)


def test_a_share_of_the_units_takes_that_share_of_the_weights(structure):
    kept = kept_all(structure)
    for units in kept.values():
        units.view(-1)[: units.numel() // 2] = False
    pruned = 1 - torch.cat([units.view(-1) for units in kept.values()]).float().mean().item()
    masks = structure.masks(kept, magnitudes(structure))
    zeros = sum((~masks[name]).sum().item() for name in structure.scored)
    total = sum(masks[name].numel() for name in structure.scored)
    # Units of a set are of one size; sets of neurons and heads have the same number of units here.
    assert zeros / total == pytest.approx(structure.share * pruned)


def test_masks_are_the_same_every_time_and_once_they_are_applied(structure):
    kept = kept_all(structure)
    for units in kept.values():
        units.view(-1)[::2] = False
    first = structure.masks(kept, magnitudes(structure))
    apply(structure, first)
    second = structure.masks(kept, magnitudes(structure))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_choice_is_left_as_it_was(structure):
    kept = kept_all(structure)
    for units in kept.values():
        units.view(-1)[0] = False
    before = {name: units.clone() for name, units in kept.items()}
    for mask in structure.masks(kept, magnitudes(structure)).values():
        assert mask.shape
    assert all(torch.equal(kept[name], before[name]) for name in kept)


def test_the_model_is_left_as_it_was(model, structure):
    before = fingerprint(model)
    structure.masks(kept_all(structure, False), magnitudes(structure))
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_scores_of_half_precision_weights_are_fp32(name):
    model = tiny_model("llama").bfloat16()
    structure = lay(model, SMALLER.get(name, example(name)))
    scores = structure.unit_scores(lambda name: structure.parameters[name].detach().abs())
    assert all(units.dtype == torch.float32 for _, units in scores)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "4",
        "2:4:8",
        "2-4",
        "block",
        "block:32",
        "block:32x",
        "n:m",
        "neuron",
        "Heads",
        "unstructured ",
        None,
        ["2:4"],
    ],
)
def test_other_names_are_refused_with_the_forms_there_are(name):
    with pytest.raises(ShrinkError) as error:
        parse_structure(name)
    text = str(error.value)
    assert text.startswith("`structure` must be one of ")
    assert repr(name) in text
    for form in ('"unstructured"', '"2:4" (any N:M with 0 < N < M)', '"block:32x32"', '"neurons"', '"heads"'):
        assert form in text


@pytest.mark.parametrize("name", ["0:4", "4:4", "5:4", "0:0", "block:0x4", "block:4x0"])
def test_sizes_that_make_no_sense_are_refused(name):
    model = tiny_model("bert")
    before = fingerprint(model)
    with pytest.raises(ShrinkError, match="`structure` must be ") as error:
        lay(model, name)
    assert f'"{name}"' in str(error.value)
    assert fingerprint(model) == before
