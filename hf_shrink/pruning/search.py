"""The search for the model that keeps most of its quality within constraints, without training."""

import copy
import logging
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_shrink.architectures import architecture_of, find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import CalibrationRows, shared_by
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.calibration import mean_loss
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.constraints import SHARES_OR_COUNTS, Limits, read_constraints, values_of
from hf_shrink.pruning.costs import count_costs
from hf_shrink.pruning.criteria.taylor import taylor
from hf_shrink.pruning.dead_units import Block, Width, find_blocks, find_widths
from hf_shrink.pruning.element_scores import element_scores
from hf_shrink.pruning.gates import Criterion, Gates, read_gates
from hf_shrink.pruning.latencies import with_latencies
from hf_shrink.pruning.layer_removal import drop_layers
from hf_shrink.pruning.layer_scores import LAYER_SCORES
from hf_shrink.pruning.reconstruction import reconstruct
from hf_shrink.pruning.shapes import Layer, Parts, Shape, even_shapes, smallest_cost, uneven_shapes
from hf_shrink.pruning.structures._groups import Groups, Piece, UnitSet
from hf_shrink.pruning.targets import LINEAR, as_rows
from hf_shrink.registry import Method

logger = logging.getLogger(__name__)

KINDS: tuple[Literal["ffn", "heads"], ...] = ("ffn", "heads")
NAMES: Mapping[str, str] = {"layers": "layers", "ffn": "neurons", "heads": "heads"}  # of cuts, as users write them
SEARCHED = ("layers", "heads", "neurons")
COMPARED_ROWS = 512  # rows that shapes are compared on
COMPARED_SHAPES = 24  # at most, in even steps


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Args:
        constraints: Checked.
        structures: Some of `SEARCHED`; None stands for all that the family can lose.
        criterion: What a unit is worth.
        uniform: Whether the blocks stay equally wide, as a stock model must be.
        sequence_length: Tokens of the row that MACs are counted on; None takes the rows' median.
        reconstruct: Whether what stays makes up for what goes, by least squares.
        seed: Of the noise.
    """

    constraints: Mapping[str, Any]
    structures: Sequence[str] | None
    criterion: Method
    uniform: bool
    sequence_length: int | None
    reconstruct: bool
    seed: int


def check_structures(structure: str | Sequence[str] | None) -> Sequence[str] | None:
    """Refuse structures that cannot be searched.

    Args:
        structure: As the user wrote it.

    Returns:
        A list, or None.

    Raises:
        ShrinkError: If one is none of "layers", "heads" and "neurons".
    """
    if structure is None:
        return None
    structures = [structure] if isinstance(structure, str) else list(structure)
    if not structures or not set(structures) <= set(SEARCHED):
        raise ShrinkError(
            f"`structure` must be some of {', '.join(SEARCHED)} with constraints, got {structures}. Choose some."
        )
    return structures


def search(model: PreTrainedModel, rows: CalibrationRows, wanted: Search) -> PreTrainedModel:
    """Find the shape with the least loss that meets the constraints.

    Heads and neurons go by a criterion of gates on their outputs, layers by the loss without them, and what reads the
    units that go is moved to make up for them (after Kwon et al., 2022, arXiv:2204.09656). Where the constraints can
    be met with several numbers of layers or heads, the shapes are compared by their loss on up to 512 rows.

    Args:
        model: Of a known family; it stays as it is.
        rows: With labels.
        wanted: What is looked for.

    Returns:
        A smaller model. Where it was not to be uniform, a model of the same size, but for dropped layers, whose dead
        units `save_pruned` takes out.

    Raises:
        ShrinkError: If the constraints cannot be met.
    """
    compared = replace(rows, rows=rows.rows.select(range(min(COMPARED_ROWS, len(rows.rows)))))
    length = wanted.sequence_length or _median_length(rows)
    parts, products = _study(model, rows, compared, length, wanted)
    made = partial(_shaped, model, parts, products if wanted.reconstruct else {}, uniform=wanted.uniform)
    if "latency_ms" in wanted.constraints:
        parts = with_latencies(parts, model, made, length)
    limits = read_constraints(wanted.constraints, parts.table.total)
    shapes = list((even_shapes if wanted.uniform else uneven_shapes)(parts, limits))
    if not shapes:
        raise ShrinkError(_unreachable(parts, limits, wanted))
    shapes = shapes[:: math.ceil(len(shapes) / COMPARED_SHAPES)]
    best = shapes[0]
    if len(shapes) > 1:
        titled = tqdm(shapes, desc="Comparing", unit=" shapes", leave=False, disable=shared_by()[0] > 0)
        losses = [mean_loss(made(shape), compared) for shape in titled]
        best = shapes[min(range(len(shapes)), key=lambda each: (math.isnan(losses[each]), losses[each]))]
        for shape, loss in zip(shapes, losses, strict=True):
            logger.info("%s: loss %.4f", _described(parts, shape), loss)
    return made(best)


def _study(
    model: PreTrainedModel, rows: CalibrationRows, compared: CalibrationRows, length: int, wanted: Search
) -> tuple[Parts, Mapping[str, Tensor]]:
    """What the model is made of, and what its parts are worth."""
    structures = _structures(model, wanted)
    widths = [width for width in find_widths(model) if _kind(width) in structures] if wanted.uniform else []
    blocks = [block for width in widths for block in width.blocks]
    if not wanted.uniform:
        blocks = [block for kind in KINDS if NAMES[kind] in structures for _, block in find_blocks(model, kind)]
    gates = read_gates(model, blocks, rows, _of_gates(wanted.criterion)) if blocks else Gates({}, {})
    parts = Parts(
        table=count_costs(model, length),
        layers=_layer_order(model, compared) if "layers" in structures else [],
        blocks=blocks,
        widths=widths,
        layer_of=_layers_of(model, blocks),
        scores=_unit_scores(model, blocks, gates, rows, wanted),
    )
    return parts, gates.products


def _structures(model: PreTrainedModel, wanted: Search) -> set[str]:
    """What may go of those that were asked for."""
    native = {NAMES[cut] for cut in architecture_of(inner_model(model)).cuts if cut in NAMES}
    asked = set(SEARCHED if wanted.structures is None else wanted.structures)
    possible = asked & native if wanted.uniform else asked
    if wanted.structures is not None and possible < asked:
        name = type(model).__name__
        if not possible:
            raise ShrinkError(
                f"`structure` must name what a stock {name} can lose ({', '.join(sorted(native))}), got "
                f"{sorted(asked)}. Choose among these, or set uniform=False and save it with another layout."
            )
        warnings.warn(
            f"The {' and '.join(sorted(asked - possible))} of {name} stay: the config of a stock model cannot say "
            f"fewer. uniform=False lets them go.",
            stacklevel=6,  # whoever called prune
        )
    return possible


def _kind(width: Width) -> str:
    return "neurons" if width.unit == "FFN units" else "heads"


def _of_gates(criterion: Method) -> Criterion:
    return criterion.function if criterion.facts["reads"] == "gradients" else taylor


def _unit_scores(
    model: PreTrainedModel, blocks: Sequence[Block], gates: Gates, rows: CalibrationRows, wanted: Search
) -> dict[str, Tensor]:
    """What units are worth, the same in all blocks that keep the same ones."""
    scores = gates.scores
    if wanted.criterion.facts["reads"] != "gradients":
        laid = Groups({block.name: UnitSet(len(block.live), _linear(model, block)) for block in blocks})
        scores = dict(laid.unit_scores(element_scores(model, laid, wanted.criterion, rows, wanted.seed)))
    together: dict[str, Tensor] = {}
    for block in blocks:
        together[block.chosen_with] = together.get(block.chosen_with, 0) + scores[block.name].cpu()
    return {block.name: together[block.chosen_with] for block in blocks}


def _linear(model: PreTrainedModel, block: Block) -> tuple[Piece, ...]:
    """Without T5's relative positions, which are no linear map and have no inputs to read."""
    places = {name for name, module in model.named_modules() if isinstance(module, LINEAR)}
    return tuple(piece for piece in block.pieces if piece.name.rpartition(".")[0] in places)


def _layer_order(model: PreTrainedModel, rows: CalibrationRows) -> list[Layer]:
    """Layers that may go, those first without which the loss is least; each stack keeps one."""
    rises = LAYER_SCORES["loss"].function(model, find_layers(model), rows)
    left = {stack: len(found) for stack, found in rises.items()}
    places = [(stack, index) for stack, found in rises.items() for index in range(len(found))]
    order = []
    for stack, index in sorted(places, key=lambda place: rises[place[0]][place[1]]):
        if left[stack] > 1:
            order.append((stack, index))
            left[stack] -= 1
    return order


def _layers_of(model: PreTrainedModel, blocks: Sequence[Block]) -> dict[str, Layer]:
    names = {id(module): name for name, module in model.named_modules()}
    places = {
        f"{names[id(layer)]}.": (stack, index)
        for stack, layers in find_layers(model).items()
        for index, layer in enumerate(layers)
    }
    return {block.name: next(at for name, at in places.items() if block.name.startswith(name)) for block in blocks}


def _median_length(rows: CalibrationRows) -> int:
    """Tokens of the middle row; of images and sound the length does not matter."""
    if "input_ids" not in rows.rows.column_names:
        return 1
    return int(statistics.median(map(len, rows.rows["input_ids"])))


@torch.no_grad()
def _shaped(
    model: PreTrainedModel, parts: Parts, products: Mapping[str, Tensor], shape: Shape, *, uniform: bool
) -> PreTrainedModel:
    """A copy of the model without what goes, and with what stays made up for it."""
    smaller = copy.deepcopy(model)
    found = {block.name: block for kind in KINDS for _, block in find_blocks(smaller, kind)}
    for name, kept in shape.kept.items():
        if parts.layer_of[name] not in shape.dropped and not kept.all():
            _take_out(smaller, found[name], kept, products.get(name))
    if shape.dropped:
        by_stack: dict[str, list[int]] = {}
        for stack, index in sorted(shape.dropped):
            by_stack.setdefault(f"{stack}_layers", []).append(index)
        smaller = drop_layers(smaller, **by_stack)
    cut = any(not kept.all() for name, kept in shape.kept.items() if parts.layer_of[name] not in shape.dropped)
    return compact(smaller) if uniform and cut else smaller


def _take_out(model: PreTrainedModel, block: Block, kept: Tensor, products: Tensor | None) -> None:
    *rows, columns = block.pieces
    module: Any = model.get_submodule(block.name)
    stays = kept.to(module.weight.device).repeat_interleave(columns.width)
    weight = as_rows(module, module.weight)
    mended = weight * stays if products is None else reconstruct(weight, products, stays)
    module.weight.copy_(as_rows(module, mended))
    for piece in rows:
        goes = ~kept.to(piece.parameter.device).repeat_interleave(piece.width)
        part = piece.parameter.narrow(piece.axis, piece.start, len(goes))
        part.index_fill_(piece.axis, goes.nonzero().flatten(), 0)


# ---------------------------------------------------------------------- what is said
def _unreachable(parts: Parts, limits: Limits, wanted: Search) -> str:
    dense, least = values_of(parts.table.total), values_of(smallest_cost(parts, even=wanted.uniform))
    name = max(limits.most, key=lambda each: least[each] / limits.most[each])
    if name not in SHARES_OR_COUNTS:
        nearest = _rounded_up(least[name])
    elif isinstance(wanted.constraints[name], float):
        nearest = _rounded_up(least[name] / dense[name])
    else:
        nearest = str(math.ceil(least[name]))
    return (
        f"`constraints` must be within reach of what may go, got {name}={wanted.constraints[name]}, and the least is "
        f"{nearest}. Ask for that or more, or let more go with `structure`: {', '.join(SEARCHED)}."
    )


def _rounded_up(value: float) -> str:
    """With three digits, so that it can be asked for."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / digit) * digit:.3g}"


def _described(parts: Parts, shape: Shape) -> str:
    layers = ", ".join(f"{stack} {index}" for stack, index in shape.dropped) or "no layer"
    shares = [float(kept.float().mean()) for kept in shape.kept.values()]
    return f"without {layers}, {statistics.mean(shares or [1.0]):.0%} of the units of a block"
