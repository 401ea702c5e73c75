"""Least squares: what stays of a linear map makes up for the inputs that it lost."""

import torch
from torch import Tensor

from hf_shrink.errors import ShrinkError

RIDGE = 0.3  # of the mean square of an input: how far the weights that stay may move for it


def reconstruct(weight: Tensor, products: Tensor, kept: Tensor, ridge: float = RIDGE) -> Tensor:
    """Move the weights of the inputs that stay so that the outputs change least (He et al., 2017, arXiv:1707.06168).

    Args:
        weight: Shape (outputs, inputs).
        products: X^T X of the inputs, shape (inputs, inputs).
        kept: Shape (inputs,), True where an input stays.
        ridge: Above 0, a share of the inputs' mean square: what it costs to move a weight.

    Returns:
        Shape and dtype of the weight; zero where an input is gone.

    Raises:
        ShrinkError: If the products are not finite.
    """
    if not products.isfinite().all():
        raise ShrinkError(
            "`model` must give finite numbers on the calibration rows, got inputs or gradients that are not. Look for "
            "an overflow in half precision, or load it in float32."
        )
    stays, goes = kept.nonzero().flatten(), (~kept).nonzero().flatten()
    among = products[stays][:, stays].double()
    across = products[goes][:, stays].double()
    lost = weight[:, goes].double()
    among.diagonal().add_(ridge * products.diagonal().double().mean() + torch.finfo(torch.float32).tiny)
    moved = torch.linalg.solve(among, (lost @ across).T).T  # (outputs, inputs that stay)
    mended = torch.zeros_like(weight)
    mended[:, stays] = (weight[:, stays].double() + moved).to(weight.dtype)
    return mended
