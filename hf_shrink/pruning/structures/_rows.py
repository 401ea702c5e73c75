"""Units laid over single weights, each seen as outputs x inputs."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from hf_shrink.pruning.structures.structure import ElementScores
from hf_shrink.pruning.targets import as_rows


class RowUnits:
    """One set of units for each linear map.

    Args:
        linears: Linear maps by name.
        share: Part of a pruned unit that becomes zero.
        units: From element scores (outputs, inputs) to the scores of the units.
        mask: From the units that stay, and a function for the element scores, to a mask (outputs, inputs).
    """

    def __init__(
        self,
        linears: Mapping[str, nn.Module],
        share: float,
        units: Callable[[Tensor], Tensor],
        mask: Callable[[Tensor, Callable[[], Tensor]], Tensor],
    ) -> None:
        self.parameters = {f"{name}.weight": module.get_parameter("weight") for name, module in linears.items()}
        self.scored = tuple(self.parameters)
        self.share = share
        self._modules = dict(zip(self.scored, linears.values(), strict=True))
        self._units = units
        self._mask = mask

    def unit_scores(self, score: ElementScores) -> Iterator[tuple[str, Tensor]]:
        """Score the units of one weight after the other.

        Args:
            score: Element scores of a parameter.

        Yields:
            Name of the weight and the scores of its units.
        """
        for name, module in self._modules.items():
            yield name, self._units(as_rows(module, score(name).float()))

    def masks(self, kept: Mapping[str, Tensor], score: ElementScores) -> dict[str, Tensor]:
        """Turn a choice of units into masks.

        Args:
            kept: For every weight which of its units stay.
            score: As it was when they were scored.

        Returns:
            For every weight True where it stays.
        """
        return {name: self._mask_of(name, kept[name], score) for name in self.scored}

    def _mask_of(self, name: str, kept: Tensor, score: ElementScores) -> Tensor:
        module, device = self._modules[name], self.parameters[name].device
        mask = self._mask(kept.to(device), lambda: as_rows(module, score(name).float()).to(device))
        return as_rows(module, mask).contiguous()
