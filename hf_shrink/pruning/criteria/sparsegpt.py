"""SparseGPT."""

import torch
from torch import Tensor

from hf_shrink.pruning.criteria import CRITERIA
from hf_shrink.pruning.structures.n_m import best_of

DAMPENING = 0.01  # of the mean diagonal, added to it; the paper's
BLOCK = 128  # columns whose mask is chosen at once; the paper's


def eliminate(
    weight: Tensor,
    products: Tensor,
    *,
    count: int,
    n: int | None = None,
    m: int | None = None,
    block_size: int = BLOCK,
    dampening: float = DAMPENING,
) -> Tensor:
    """Prune column by column, and let the columns to the right make up for it.

    Blocks of columns choose their masks when their turn comes, after the updates of those before them. What is zero
    already stays zero, and counts.

    Args:
        weight: Shape (outputs, inputs); left as it is.
        products: X^T X of the inputs, shape (inputs, inputs). Inputs that were always zero may have any weight: theirs
            go first.
        count: How many weights go, shared by the blocks in proportion; an N:M pattern sets its own number.
        n: Of N:M, how many of each run of inputs stay.
        m: Of N:M, how long a run is.
        block_size: Columns of a block, at least 1.
        dampening: Share of the mean diagonal that is added to it, above 0.

    Returns:
        What the weight becomes, fp32, exact zeros where it is pruned.
    """
    left, zero = weight.detach().float().clone(), weight.detach() == 0
    factor, unused = _inverse_factor(products, dampening), products.diagonal() == 0
    columns = left.shape[1]
    width = block_size if m is None else max(block_size // m, 1) * m  # a run of M stays in one block
    for start in range(0, columns, width):
        end = min(start + width, columns)
        part, inverse = left[:, start:end], factor[start:end, start:end]
        worth = (part / inverse.diagonal()).square().masked_fill(unused[start:end], 0)
        worth.masked_fill_(zero[:, start:end], -1)
        if n is None or m is None:
            kept = _highest(worth, round(count * end / columns) - round(count * start / columns))
        else:
            kept = best_of(worth.unflatten(1, (-1, m)), n).flatten(1)
        kept &= ~zero[:, start:end]
        errors = torch.zeros_like(part)
        for i in range(end - start):
            errors[:, i] = part[:, i].masked_fill(kept[:, i], 0) / inverse[i, i]
            part[:, i:] -= errors[:, i, None] * inverse[i, i:]
        part.masked_fill_(~kept, 0)  # the subtraction leaves rounding errors
        left[:, end:] -= errors @ factor[start:end, end:]
    return left


@CRITERIA.add("sparsegpt", paper="arXiv:2301.00774", reads="hessian", compares="local", update=eliminate)
def sparsegpt(weight: Tensor, signal: Tensor) -> Tensor:
    """Keep the weights whose loss the others of their output could make up for least (Frantar & Alistarh, 2023).

    This is what one weight is worth while all others are there; the method itself removes them one by one, with
    `eliminate`.

    Args:
        weight: Shape (outputs, inputs).
        signal: X^T X of the inputs, shape (inputs, inputs).

    Returns:
        w^2 / [H^-1]_jj in fp32, shape of the weight: twice the rise of the output's squared error; 0 for inputs that
        were always zero.
    """
    factor = _inverse_factor(signal, DAMPENING)
    inverse_diagonal = factor.square().sum(0)  # of factor^T factor
    worth = weight.detach().float().square() / inverse_diagonal
    return worth.masked_fill(signal.diagonal() == 0, 0)


def _inverse_factor(products: Tensor, dampening: float) -> Tensor:
    """Upper U with U^T U = H^-1: U[j, j:] / U[j, j] tells how the columns from j on make up for column j."""
    hessian = products.float().clone()
    diagonal = hessian.diagonal()
    used = diagonal[diagonal != 0]
    mean = used.mean() if len(used) else 1.0
    diagonal[diagonal == 0] = mean  # inputs that were always zero touch no other column
    diagonal += dampening * mean
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def _highest(worth: Tensor, pruned: int) -> Tensor:
    kept = torch.ones(worth.numel(), dtype=torch.bool, device=worth.device)
    kept[worth.flatten().argsort(stable=True)[:pruned]] = False
    return kept.view(worth.shape)
