"""SparseGPT against the removal of columns one by one in double precision."""

import pytest
import torch

from hf_shrink.pruning.criteria.sparsegpt import eliminate, sparsegpt


def correlated(inputs, rows=256, seed=0):
    """Inputs that share a few causes, so that one can stand in for another."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(rows, inputs // 4, generator=generator)
    mixed = causes @ torch.randn(inputs // 4, inputs, generator=generator)
    return mixed + 0.1 * torch.randn(rows, inputs, generator=generator)


def weight(outputs, inputs, seed=1):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def one_by_one(given, products, choose, width):
    """Each column leaves in its turn; those after it take over by the exact inverse of what is left."""
    hessian = products.double()
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian))
    left = given.double().clone()
    for start in range(0, left.shape[1], width):
        columns = range(start, min(start + width, left.shape[1]))
        scale = torch.stack([torch.linalg.inv(hessian[j:, j:])[0, 0] for j in columns])
        kept = choose(left[:, columns] ** 2 / scale, columns)
        for j in columns:
            inverse = torch.linalg.inv(hessian[j:, j:])
            gone = torch.where(kept[:, j - start], 0, left[:, j])
            left[:, j:] -= gone[:, None] * inverse[0] / inverse[0, 0]
        left[:, columns] = torch.where(kept, left[:, columns], 0)
    return left


def lowest(worth, count):
    kept = torch.ones(worth.numel(), dtype=torch.bool)
    kept[worth.flatten().argsort()[:count]] = False
    return kept.view(worth.shape)


@pytest.mark.parametrize(("count", "width"), [(48, 16), (48, 4), (30, 5)])
def test_it_is_the_removal_of_columns_one_by_one(count, width):
    given, inputs = weight(6, 16), correlated(16)
    products = inputs.T @ inputs

    def choose(worth, columns):
        return lowest(worth, round(count * columns.stop / 16) - round(count * columns.start / 16))

    expected = one_by_one(given, products, choose, width)
    found = eliminate(given, products, count=count, block_size=width)
    assert int((found == 0).sum()) == count
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=2e-3)


def test_a_pattern_is_the_same_with_runs_for_blocks():
    given, inputs = weight(6, 16), correlated(16)
    products = inputs.T @ inputs
    found = eliminate(given, products, count=48, n=2, m=4, block_size=8)
    assert ((found.unflatten(1, (-1, 4)) != 0).sum(-1) == 2).all()

    def choose(worth, columns):
        return torch.cat([torch.stack([lowest(row, 2) for row in run]) for run in worth.split(4, dim=1)], dim=1)

    torch.testing.assert_close(found.double(), one_by_one(given, products, choose, 8), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_outputs_change_less_than_by_magnitude_and_by_wanda(sparsity):
    given, inputs = weight(24, 160), correlated(160, rows=1024)
    count = round(sparsity * given.numel())

    def error(pruned):
        return (inputs @ (pruned - given).T).square().sum()

    per_row = round(sparsity * 160)
    by_wanda = (given.abs() * inputs.norm(dim=0)).argsort(dim=1)
    wanda = given.scatter(1, by_wanda[:, :per_row], 0)
    magnitude = given * lowest(given.abs(), count)
    found = eliminate(given, inputs.T @ inputs, count=count)
    assert int((found == 0).sum()) == count
    assert error(found) < 0.7 * min(error(wanda), error(magnitude))


def test_saliency_by_hand():
    scores = sparsegpt(torch.tensor([[3.0, 1.0]]), torch.diag(torch.tensor([1.0, 4.0])))
    dampened = torch.tensor([[9 * 1.025, 1 * 4.025]])  # 1 % of the mean diagonal
    torch.testing.assert_close(scores, dampened)


def test_inputs_that_were_always_zero_go_first_and_disturb_nothing():
    # Their row and column of zeros make the products singular.
    given, inputs = weight(4, 12), correlated(12)
    inputs[:, [3, 7]] = 0
    products = inputs.T @ inputs
    found = eliminate(given, products, count=8)
    assert (found[:, [3, 7]] == 0).all()
    others = [i for i in range(12) if i not in (3, 7)]
    assert torch.equal(found[:, others], given[:, others])
    assert (sparsegpt(given, products)[:, [3, 7]] == 0).all()


def test_it_works_where_all_inputs_were_zero():
    found = eliminate(weight(3, 4), torch.zeros(4, 4), count=6)
    assert found.isfinite().all()
    assert int((found == 0).sum()) == 6


def test_what_is_zero_stays_zero():
    # The updates of columns to its left would fill it.
    given, inputs = weight(6, 16), correlated(16)
    before = lowest(given.abs(), 40)
    for options in ({"count": 20, "block_size": 4}, {"count": 48, "n": 2, "m": 4}):
        found = eliminate(given * before, inputs.T @ inputs, **options)
        assert (found[~before] == 0).all()


def test_the_weight_and_the_products_are_left_as_they_are():
    given, inputs = weight(4, 8), correlated(8)
    products = inputs.T @ inputs
    copies = given.clone(), products.clone()
    eliminate(given, products, count=10)
    sparsegpt(given, products)
    assert torch.equal(given, copies[0])
    assert torch.equal(products, copies[1])
