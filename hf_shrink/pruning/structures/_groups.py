"""Units that span several parameters: rows of some, columns of others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hf_shrink.architectures import Architecture, architecture_of, find_layers
from hf_shrink.architectures.description import Cut, LayerStack
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.structures.structure import ElementScores

STRUCTURES_OF_CUTS: dict[Cut, str] = {"ffn": "neurons", "heads": "heads"}
UNIVERSAL = ('"unstructured"', '"2:4"', 'or "block:32x32"')


@dataclass(frozen=True)
class Piece:
    """What the units of a set have of one parameter: side by side, each as wide as the others.

    Args:
        name: Of the parameter.
        parameter: Itself.
        axis: Along which the units lie.
        start: Where the first one begins.
        width: Of one unit.
    """

    name: str
    parameter: nn.Parameter
    axis: int
    start: int
    width: int

    def sums(self, scores: Tensor, units: int) -> Tensor:
        """Add up the scores of each unit.

        Args:
            scores: Shape of the parameter.
            units: How many there are.

        Returns:
            fp32, shape (units,).
        """
        part = scores.narrow(self.axis, self.start, units * self.width)
        return part.float().unflatten(self.axis, (units, self.width)).movedim(self.axis, 0).flatten(1).sum(1)

    def write(self, mask: Tensor, kept: Tensor) -> None:
        """Take the pruned units out of a mask.

        Args:
            mask: Shape of the parameter; changed in place.
            kept: Shape (units,).
        """
        along = kept.to(mask.device).repeat_interleave(self.width)
        shape = [-1 if axis == self.axis else 1 for axis in range(mask.ndim)]
        mask.narrow(self.axis, self.start, len(along)).logical_and_(along.view(shape))


@dataclass(frozen=True)
class UnitSet:
    """A set of units.

    Args:
        units: How many there are.
        pieces: What they are made of.
    """

    units: int
    pieces: tuple[Piece, ...]


class Groups:
    """Units that are whole groups of rows, columns and biases.

    Args:
        sets: By name.
    """

    share = 1.0

    def __init__(self, sets: Mapping[str, UnitSet]) -> None:
        self._sets = dict(sets)
        pieces = [piece for units in sets.values() for piece in units.pieces]
        self.parameters = {piece.name: piece.parameter for piece in pieces}
        self.scored = tuple(name for name, parameter in self.parameters.items() if parameter.ndim > 1)

    def unit_scores(self, score: ElementScores) -> Iterator[tuple[str, Tensor]]:
        """Add up the scores of every unit's weights.

        Args:
            score: Element scores of a weight.

        Yields:
            Name of a set and the scores of its units, shape (units,).
        """
        for name, units in self._sets.items():
            by_weight: dict[str, list[Piece]] = {}
            for piece in units.pieces:
                if piece.parameter.ndim > 1:
                    by_weight.setdefault(piece.name, []).append(piece)
            sums = torch.zeros(units.units)
            for weight, pieces in by_weight.items():
                scores = score(weight)
                sums = sums.to(scores.device)
                for piece in pieces:
                    sums += piece.sums(scores, units.units)
            yield name, sums

    def masks(self, kept: Mapping[str, Tensor], score: ElementScores) -> dict[str, Tensor]:
        """Turn a choice of units into masks.

        Args:
            kept: For every set which of its units stay.
            score: Unused.

        Returns:
            For every parameter True where it stays.
        """
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.parameters.items()}
        for name, units in self._sets.items():
            for piece in units.pieces:
                piece.write(masks[piece.name], kept[name])
        return masks


@dataclass(frozen=True)
class Place:
    """One linear map of a layer.

    Args:
        name: In the whole model.
        module: Itself.
    """

    name: str
    module: nn.Module

    def rows(self, width: int, start: int = 0) -> list[Piece]:
        """Outputs, with their biases.

        Args:
            width: Outputs of one unit.
            start: Where the first unit begins.

        Returns:
            The pieces of weight and bias.
        """
        axis = 1 if isinstance(self.module, Conv1D) else 0
        parameters = dict(self.module.named_parameters(recurse=False))
        return [
            Piece(f"{self.name}.{name}", parameters[name], axis if name == "weight" else 0, start, width)
            for name in ("weight", "bias")
            if name in parameters
        ]

    def columns(self, width: int) -> list[Piece]:
        """Inputs.

        Args:
            width: Inputs of one unit.

        Returns:
            The piece of the weight.
        """
        axis = 0 if isinstance(self.module, Conv1D) else 1
        return [Piece(f"{self.name}.weight", self.module.get_parameter("weight"), axis, 0, width)]

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        return self.module.get_parameter("weight").shape[1 if isinstance(self.module, Conv1D) else 0]


class Layers:
    """The layers of a known model, and where their linear maps are.

    Args:
        model: With an adapter or without.
        cut: What the structure needs the family to allow in a model that stock transformers loads; a family that does
            not is refused. None needs nothing; an unknown family is refused in any case.
    """

    def __init__(self, model: nn.Module, cut: Cut | None = None) -> None:
        self._model = inner_model(model)
        self.architecture = architecture_of(self._model)
        self.config = self._model.config
        if cut is not None:
            _check_cut(self.architecture, cut, type(self._model).__name__)
        self._names = {id(module): name for name, module in model.named_modules()}

    def __iter__(self) -> Iterator[tuple[LayerStack, nn.Module]]:
        found = find_layers(self._model)
        for stack in self.architecture.stacks:
            for layer in found.get(stack.name, ()):
                yield stack, layer

    def name(self, module: nn.Module) -> str:
        """What a module is called.

        Args:
            module: Of the model.

        Returns:
            Its name in the whole model.
        """
        return self._names[id(module)]

    def place(self, layer: nn.Module, path: str) -> Place | None:
        """Find a linear map.

        Args:
            layer: The layer.
            path: From the layer.

        Returns:
            Its place; beneath an adapter that of the map itself; None where the layer has no such map.
        """
        module = dict(layer.named_modules()).get(path)
        while module is not None and "base_layer" in dict(module.named_children()):
            module = module.get_submodule("base_layer")
        return None if module is None else Place(self._names[id(module)], module)


def check_sets(structure: str, sets: Mapping[str, UnitSet], lacking: list[str]) -> None:
    """Refuse targets that leave no set whole.

    Args:
        structure: Its name.
        sets: What was found.
        lacking: Names of the maps that belong to a set and are no targets.

    Raises:
        ShrinkError: If there is no set.
    """
    if not sets:
        raise ShrinkError(
            f"`targets` must match all linear maps that a set of {structure} is made of, got none for which they do: "
            f"{', '.join(lacking[:3])} and so on are left out. Widen `targets` or narrow `ignore`."
        )


def _check_cut(architecture: Architecture, cut: Cut, class_name: str) -> None:
    if cut in architecture.cuts:
        return
    other = [f'"{name}"' for key, name in STRUCTURES_OF_CUTS.items() if key in architecture.cuts]
    raise ShrinkError(
        f'`structure` must leave a model that stock transformers loads smaller, got "{STRUCTURES_OF_CUTS[cut]}" for '
        f"{class_name} ({architecture.model_types[0]}), which it cannot. "
        f"Take {', '.join([*other, *UNIVERSAL])} instead."
    )
