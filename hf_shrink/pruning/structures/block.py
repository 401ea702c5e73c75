"""Tiles of a weight."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning.structures import STRUCTURES
from hf_shrink.pruning.structures._rows import RowUnits
from hf_shrink.pruning.targets import as_rows


@STRUCTURES.add(
    "block",
    paper="arXiv:1711.02782",
    form='"block:32x32" (outputs x inputs, both from 1 on)',
    pattern=r"block:(?P<rows>\d+)x(?P<columns>\d+)",
)
def block(model: nn.Module, linears: Mapping[str, nn.Module], *, rows: int, columns: int) -> RowUnits:
    """Prune whole tiles of the weights, which block-sparse kernels skip (Narang et al., 2017).

    Args:
        model: Unused.
        linears: Linear maps by name.
        rows: Outputs that a tile spans, at least 1; it divides the outputs of every map.
        columns: Inputs that a tile spans, at least 1; it divides the inputs of every map.

    Returns:
        One set of units for each weight, of shape (outputs / rows, inputs / columns).

    Raises:
        ShrinkError: If a tile has no size or does not fit a weight.
    """
    name = f"block:{rows}x{columns}"
    if rows < 1 or columns < 1:
        raise ShrinkError(f'`structure` must be "block:32x32" with sizes from 1 on, got "{name}". Write such a size.')
    for path, module in linears.items():
        outputs, inputs = as_rows(module, module.get_parameter("weight")).shape
        if outputs % rows or inputs % columns:
            raise ShrinkError(
                f'`structure` must divide the outputs and inputs of every target, got "{name}" for {path} with '
                f"{outputs} outputs and {inputs} inputs. Take another size, or add the module to `ignore`."
            )

    def units(scores: Tensor) -> Tensor:
        return scores.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).sum((1, 3))

    def mask(kept: Tensor, scores: Callable[[], Tensor]) -> Tensor:
        return kept.repeat_interleave(rows, dim=0).repeat_interleave(columns, dim=1)

    return RowUnits(linears, 1.0, units, mask)
