"""Single weights."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from hf_shrink.pruning.structures import STRUCTURES
from hf_shrink.pruning.structures.structure import ElementScores


class SingleWeights:
    """Every weight is a unit.

    Args:
        linears: Linear maps by name.
    """

    share = 1.0

    def __init__(self, linears: Mapping[str, nn.Module]) -> None:
        self.parameters = {f"{name}.weight": module.get_parameter("weight") for name, module in linears.items()}
        self.scored = tuple(self.parameters)

    def unit_scores(self, score: ElementScores) -> Iterator[tuple[str, Tensor]]:
        """The element scores themselves.

        Args:
            score: Element scores of a parameter.

        Yields:
            Name of the weight and its scores, as it is stored.
        """
        for name in self.scored:
            yield name, score(name).float()

    def masks(self, kept: Mapping[str, Tensor], score: ElementScores) -> dict[str, Tensor]:
        """The choice itself.

        Args:
            kept: For every weight which of its elements stay.
            score: Unused.

        Returns:
            For every weight True where it stays.
        """
        return {name: kept[name].to(parameter.device) for name, parameter in self.parameters.items()}


@STRUCTURES.add("unstructured", paper="arXiv:1506.02626", form='"unstructured"', pattern="unstructured")
def unstructured(model: nn.Module, linears: Mapping[str, nn.Module]) -> SingleWeights:
    """Prune single weights wherever they are (Han et al., 2015).

    Files and computing time stay as they are, unless a sparse format or runtime makes use of the zeros.

    Args:
        model: Unused.
        linears: Linear maps by name.

    Returns:
        One set of units for each weight, of its shape.
    """
    return SingleWeights(linears)
