"""N of M consecutive inputs, against a loop over the runs."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.structures.n_m import best_of
from hf_shrink.pruning.targets import as_rows
from tests.architectures.models import tiny_model
from tests.pruning.structures.laying import fingerprint, kept_all, lay, magnitudes

PATTERNS = [(1, 2), (2, 4), (4, 8), (3, 4), (1, 8)]


def by_loop(row, n, m):
    """The mask of one output."""
    kept = []
    for start in range(0, len(row), m):
        run = row[start : start + m]
        best = sorted(range(m), key=lambda place: (-run[place], place))[:n]
        kept += [place in best for place in range(m)]
    return kept


def linear(kind):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 6) if kind == "Linear" else Conv1D(6, 16))


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_best_stay_and_the_first_of_equal_ones(n, m, kind, coarse):
    model = linear(kind)
    structure = lay(model, f"{n}:{m}")
    scores = torch.randn(model[0].weight.shape)
    scores = (scores * 2).round() if coarse else scores  # coarse ones are full of ties
    (name,) = structure.parameters
    kept = {name: torch.zeros(6, 16 // m, dtype=torch.bool)}
    rows = as_rows(model[0], structure.masks(kept, lambda _: scores)[name])
    expected = [by_loop(row, n, m) for row in as_rows(model[0], scores).tolist()]
    assert rows.tolist() == expected
    assert (rows.unflatten(1, (-1, m)).sum(-1) == n).all()


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_a_unit_is_worth_what_would_go(n, m, kind):
    model = linear(kind)
    structure = lay(model, f"{n}:{m}")
    scores = torch.randn(model[0].weight.shape)
    ((_, units),) = structure.unit_scores(lambda _: scores)
    for output, row in enumerate(as_rows(model[0], scores).tolist()):
        for run in range(16 // m):
            lost = sum(sorted(row[run * m : (run + 1) * m])[: m - n])
            assert units[output, run].item() == pytest.approx(lost, abs=1e-6)


def test_runs_that_stay_are_dense():
    structure = lay(tiny_model("gpt2"), "2:4")
    kept = {name: torch.rand(units.shape) > 0.5 for name, units in kept_all(structure).items()}
    masks = structure.masks(kept, magnitudes(structure))
    for name, units in kept.items():
        runs = masks[name].T.unflatten(1, (-1, 4)).sum(-1)
        assert torch.equal(runs, torch.where(units, 4, 2))


def test_infinitely_bad_weights_go_first_and_count_as_such():
    runs = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf], [-torch.inf, -torch.inf, -torch.inf, 0.0]])
    assert best_of(runs, 2).tolist() == [[False, True, True, False], [True, False, False, True]]
    structure = lay(nn.Sequential(nn.Linear(4, 2)), "2:4")
    ((_, units),) = structure.unit_scores(lambda _: runs)
    assert units.tolist() == [[-torch.inf], [-torch.inf]]


def test_runs_of_any_length():
    best = best_of(torch.zeros(260), 130)  # more places than a byte counts
    assert best.tolist() == [True] * 130 + [False] * 130


def test_inputs_that_it_does_not_divide_are_refused():
    model = tiny_model("bert")
    before = fingerprint(model)
    with pytest.raises(ShrinkError) as error:
        lay(model, "8:16")
    assert str(error.value).startswith(
        '`structure` must divide the inputs of every target, got "8:16" for bert.encoder.layer.0.output.dense '
        "with 40 inputs."
    )
    assert fingerprint(model) == before
    assert lay(model, "8:16", ignore=("re:.*\\.output.dense",)).parameters
