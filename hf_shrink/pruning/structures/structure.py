"""What every structure is to those who choose masks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

ElementScores = Callable[[str], Tensor]  # parameter name -> worth of its elements, its shape, higher is kept


class Structure(Protocol):
    """How weights fall into units that are kept or pruned whole.

    Args:
        parameters: Every parameter that masks cover, by its name in `model.named_parameters()`.
        scored: Names of those whose element scores are asked for; biases are masked and not scored.
        share: Part of a pruned unit that becomes zero: 1, or (M - N) / M.
    """

    parameters: dict[str, nn.Parameter]
    scored: tuple[str, ...]
    share: float

    def unit_scores(self, score: ElementScores) -> Iterator[tuple[str, Tensor]]:
        """Score the units, set by set.

        Args:
            score: Element scores of a parameter in `scored`.

        Returns:
            Name of a set and the scores of its units, fp32, of any shape, one set after the other; the same sets in
            the same order every time.
        """
        ...

    def masks(self, kept: Mapping[str, Tensor], score: ElementScores) -> dict[str, Tensor]:
        """Turn a choice of units into masks.

        Args:
            kept: For every set which of its units stay, bool, shape of their scores.
            score: As it was when they were scored.

        Returns:
            For every parameter True where it stays, its shape, on its device.
        """
        ...
