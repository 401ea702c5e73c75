"""Pruning at one stroke, without training."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import CalibrationRows, RowOptions, read_rows
from hf_shrink.inputs.counts import check_counts
from hf_shrink.inputs.float_models import check_float_model
from hf_shrink.inputs.models import load_model
from hf_shrink.pruning.calibration import input_products, run_order
from hf_shrink.pruning.config import DEFAULT_IGNORE, SCOPES, structure_share
from hf_shrink.pruning.constraints import check_constraints
from hf_shrink.pruning.criteria import CALIBRATED, CRITERIA
from hf_shrink.pruning.element_scores import element_scores, modules_of
from hf_shrink.pruning.masks import zero_pruned
from hf_shrink.pruning.search import Search, check_structures, search
from hf_shrink.pruning.selection import keep_highest
from hf_shrink.pruning.structures import Structure, make_structure, parse_structure
from hf_shrink.pruning.structures.structure import ElementScores
from hf_shrink.pruning.structures.unstructured import SingleWeights
from hf_shrink.pruning.targets import as_rows
from hf_shrink.registry import Method

WITHOUT_SEARCH: dict[str, Any] = {  # what says how much goes from where, with the defaults that say nothing
    "sparsity": None,
    "scope": None,
    "max_module_sparsity": 1.0,
    "targets": ("Linear",),
    "ignore": (DEFAULT_IGNORE,),
}
READS_ROWS = (*CALIBRATED, "gradients")
HAS_ROWS = ("unstructured", "n:m")  # the structures whose units lie within one output


def prune(
    model: Any,
    *,
    method: str | Callable[[Tensor, None], Tensor] | None = None,
    structure: str | Sequence[str] | None = None,
    sparsity: float | None = None,
    constraints: Mapping[str, float] | None = None,
    uniform: bool = True,
    sequence_length: int | None = None,
    reconstruct: bool = True,
    scope: str | None = None,
    max_module_sparsity: float = 1.0,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (DEFAULT_IGNORE,),
    calibration_dataset: Any = None,
    split: str | None = None,
    task: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    calibration_size: int | None = 256,
    seed: int = 0,
) -> nn.Module:
    """Prune a model without training it.

    With `sparsity` what comes back is a plain model with zeros in it: it saves and loads as it did. With `constraints`
    it is a smaller one, of the shape with the least loss that costs no more, and what stays makes up for what went by
    least squares (after Kwon et al., 2022, arXiv:2204.09656). In several processes each reads a share of the
    calibration rows, and all choose the same weights.

    Args:
        model: A model, a folder or a Hub id; an instance is left as it is.
        method: Name in `CRITERIA`, or a function of a weight and None that gives the worth of its elements; None is
            "magnitude", and "fisher" with constraints. Those that read calibration rows are "wanda" and "sparsegpt",
            and with labels "taylor" and "fisher".
        structure: What goes as a whole, as for `PruningConfig`; a list is applied one after the other. None is
            "unstructured". With constraints any of "layers", "heads" and "neurons", and None is all of them that a
            stock model of the family can lose.
        sparsity: Share in [0, 1) of the targets' weights (of their neurons, of their heads) that are zero afterwards,
            exactly; may be left out for N:M, where it is what the pattern asks for.
        constraints: What the model may cost at most, as it is saved and loaded by stock transformers: "macs" of a row
            and "parameters" (a share in (0, 1], or a whole number), "size_mb" (megabytes of the weight file),
            "latency_ms" (milliseconds of a row on this machine, as predicted from measured parts). All of them hold.
            In place of `sparsity`, `scope`, `max_module_sparsity`, `targets` and `ignore`.
        uniform: With constraints, whether all layers stay equally wide, as a stock model has to be. False finds a
            width for each block; what comes back has dead units that `save_pruned` takes out.
        sequence_length: Tokens of the row that MACs are counted on; None takes the median of the calibration rows.
        reconstruct: With constraints, whether what stays makes up for what went.
        scope: "global" compares all targets, "local" prunes each by the same share, "rows" each output of each; None
            is what the method's paper does, which is "rows" for "wanda" (where units lie within an output; "global"
            else), "local" for "sparsegpt" and "global" for the others.
        max_module_sparsity: No target loses more than this share, in (0, 1].
        targets: What is pruned, as for `PruningConfig`.
        ignore: What is not, in the same forms.
        calibration_dataset: For methods that read rows, and for constraints, with labels: a `Dataset`, or a path or
            Hub id. The others leave it alone.
        split: Of the dataset, where it has several.
        task: Name in `TASKS`; found from the model if None.
        processing_class: What prepares raw rows; loaded from where the model was if None and needed.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None and needed.
        data_collator: Makes a padded batch; None takes the one of the task. Padding does not count where the batch
            has an `attention_mask`.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        calibration_size: Rows to draw; None takes all. For constraints 2,000 are worth their time.
        seed: Of the rows' choice, and of "random".

    Returns:
        The pruned model, in the mode (training or evaluation) of the given one.

    Raises:
        ShrinkError: If the model cannot be pruned so, or the method lacks rows or labels.
    """
    options = RowOptions(
        split, task, processing_class, text_column, label_column, data_collator, batch_size, max_length, seed
    )
    if constraints is not None:
        fixed = {"sparsity": sparsity, "scope": scope, "max_module_sparsity": max_module_sparsity}
        _check_alone({**fixed, "targets": targets, "ignore": ignore})
        check_counts(sequence_length=sequence_length)
        wanted = Search(
            check_constraints(constraints),
            check_structures(structure),
            find_criterion(method or "fisher"),
            uniform,
            sequence_length,
            reconstruct,
            seed,
        )
        return _search(model, wanted, calibration_dataset, options, calibration_size)
    if not uniform or not reconstruct or sequence_length is not None:
        raise ShrinkError(
            "`constraints` must be given for `uniform`, `sequence_length` and `reconstruct` to be heeded, got None. "
            'Give some, such as {"macs": 0.5}, or leave these out.'
        )
    criterion = find_criterion(method or "magnitude")
    structures = [structure or "unstructured"] if structure is None or isinstance(structure, str) else list(structure)
    plans = [(name, find_share(name, sparsity), find_scope(criterion, name, scope)) for name in structures]
    _check_plans(criterion, plans, max_module_sparsity)
    reads = criterion.facts["reads"]
    if reads in READS_ROWS and calibration_dataset is None:
        raise ShrinkError(
            f"`calibration_dataset` must be given for method {criterion.name!r}, which reads {reads} of rows, got "
            'None. Give some hundred rows of the kind that the model is for, or take method="magnitude".'
        )
    pruned, rows = _own_copy(model), None
    for name, _, _ in plans:  # a structure that does not fit is refused before rows are read
        make_structure(pruned, name, targets, ignore)
    if reads in READS_ROWS:
        rows = read_rows(
            pruned, model, calibration_dataset, options, labelled=reads == "gradients", size=calibration_size
        )
    for name, share, compared in plans:
        laid = make_structure(pruned, name, targets, ignore)
        if "update" in criterion.facts and rows is not None:
            _eliminate(pruned, laid, name, criterion, rows, share)
            continue
        score = element_scores(pruned, laid, criterion, rows, seed)
        apply_masks(laid, choose_masks(pruned, laid, score, share, compared, max_module_sparsity))
    return pruned


def find_criterion(method: str | Callable[..., Tensor]) -> Method:
    """The criterion that a name or a function stands for.

    Args:
        method: Name in `CRITERIA`, or a function of a weight and None.

    Returns:
        The criterion; of a function one that reads the weights alone.

    Raises:
        ShrinkError: If it is unknown, or is trained.
    """
    if callable(method):
        return Method("callable", method, "", {"reads": "weights"})
    criterion = CRITERIA[method]
    if criterion.facts["reads"] == "scores":
        raise ShrinkError(
            f"`method` must be one that needs no training, got {method!r}. "
            f'Give the Trainer a callback: PruningCallback(PruningConfig(method="{method}")).'
        )
    return criterion


def find_share(structure: str, sparsity: float | None) -> float:
    """The share of weights that goes.

    Args:
        structure: Name of a structure.
        sparsity: As the user gave it; None asks for all that an N:M pattern leaves out.

    Returns:
        In [0, 1).

    Raises:
        ShrinkError: If it is out of range, or missing.
    """
    parse_structure(structure)
    most = structure_share(structure)
    if sparsity is None and most is None:
        raise ShrinkError(
            f"`sparsity` must be given for structure {structure!r}, got None. Write half of the weights as 0.5."
        )
    share = most if sparsity is None else sparsity
    if share is None or not 0 <= share < 1:
        raise ShrinkError(f"`sparsity` must be in [0, 1), got {share}. 0.8 leaves a fifth of the weights.")
    if most is not None and not share <= most:
        raise ShrinkError(
            f"`sparsity` must be at most {most:g} with structure {structure!r}, got {share}. "
            "Leave it out for all that the pattern allows."
        )
    return share


def find_scope(criterion: Method, structure: str, scope: str | None) -> str:
    """Which weights are compared with each other.

    Args:
        criterion: The method.
        structure: Name of a structure.
        scope: As the user gave it.

    Returns:
        "global", "local" or "rows".

    Raises:
        ShrinkError: If the method or the structure has no such comparison.
    """
    kind, _ = parse_structure(structure)
    if "update" in criterion.facts and (kind.name not in HAS_ROWS or scope not in (None, "local")):
        raise ShrinkError(
            f'`method` must not be {criterion.name!r} but for structure "unstructured" or N:M with scope "local", '
            f"got structure {structure!r} and scope {scope!r}: it mends the weights of each output that stay. "
            'Take method="wanda" or "fisher".'
        )
    if scope is None:
        own = criterion.facts.get("compares", "global")
        return "global" if own == "rows" and kind.name not in HAS_ROWS else own
    if scope not in (*SCOPES, "rows"):
        raise ShrinkError(f"`scope` must be one of {sorted((*SCOPES, 'rows'))}, got {scope!r}. Choose one of these.")
    if scope == "rows" and kind.name not in HAS_ROWS:
        raise ShrinkError(
            f'`scope` must be "global" or "local" for structure {structure!r}, whose units span outputs, got "rows". '
            "Choose one of these."
        )
    return scope


def choose_masks(
    model: nn.Module,
    structure: Structure,
    score: ElementScores,
    sparsity: float,
    scope: str,
    max_module_sparsity: float = 1.0,
) -> dict[str, Tensor]:
    """Choose what goes.

    Args:
        model: What the structure was laid over.
        structure: Of one of the names that there are.
        score: Worth of the elements.
        sparsity: Share of weights that goes.
        scope: "global", "local" or "rows".
        max_module_sparsity: No set of units loses more than this share.

    Returns:
        Parameter name to mask, True = kept.
    """
    share, most = (min(1.0, part / structure.share) for part in (sparsity, max_module_sparsity))  # of the units
    units = partial(structure.unit_scores, score)
    if scope == "rows":
        kept = _keep_in_rows(model, structure, units, share)
    else:
        kept = keep_highest(units, share, scope, most)
    return structure.masks(kept, score)


def apply_masks(structure: Structure, masks: Mapping[str, Tensor]) -> None:
    """Set what a mask leaves out to zero.

    Args:
        structure: Holds the parameters.
        masks: By their names, True = kept.
    """
    for name, mask in masks.items():
        zero_pruned(structure.parameters[name], mask)


def _check_alone(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value != WITHOUT_SEARCH[name]:
            raise ShrinkError(
                f"`{name}` must be left out with `constraints`, which say how much goes, got {value!r}. "
                "Leave out one of the two."
            )


def _search(model: Any, wanted: Search, dataset: Any, options: RowOptions, size: int | None) -> nn.Module:
    if "update" in wanted.criterion.facts:
        raise ShrinkError(
            f"`method` must not be {wanted.criterion.name!r} with constraints: it prunes single weights. "
            'Take "fisher".'
        )
    if "latency_ms" in wanted.constraints and not wanted.uniform:
        raise ShrinkError(
            "`constraints` must not hold latency_ms with uniform=False, which stock transformers runs no faster, got "
            f"{dict(wanted.constraints)}. Constrain macs, or leave uniform=True."
        )
    if dataset is None:
        raise ShrinkError(
            "`calibration_dataset` must be given with `constraints`, which are met where the loss is least, got None. "
            "Give some thousand labelled rows of the kind that the model is for."
        )
    loaded = check_float_model(load_model(model), "model", "to search", "Prune before you quantize.")
    return search(loaded, read_rows(loaded, model, dataset, options, labelled=True, size=size), wanted)


def _check_plans(criterion: Method, plans: Sequence[tuple[str, float, str]], max_module_sparsity: float) -> None:
    if not plans:
        raise ShrinkError('`structure` must name at least one structure, got []. "unstructured" is the default.')
    highest = max(share for _, share, _ in plans)
    if not 0 < max_module_sparsity <= 1 or highest > max_module_sparsity:
        raise ShrinkError(
            f"`max_module_sparsity` must be in [{highest:g}, 1] (from the sparsity on), got {max_module_sparsity}. "
            "1 protects no module."
        )
    for name, share, _ in plans:
        if "update" in criterion.facts and structure_share(name) not in (None, share):
            raise ShrinkError(
                f"`sparsity` must be left out for {criterion.name!r} with structure {name!r}, of which it prunes all "
                f'runs, got {share}. Take method="wanda".'
            )


def _own_copy(model: Any) -> nn.Module:
    loaded = load_model(model)
    if not isinstance(loaded, nn.Module):
        raise ShrinkError(
            f"`model` must be a transformers model, got {type(loaded).__name__}. Prune the model it was made from."
        )
    return copy.deepcopy(loaded) if loaded is model else loaded


def _keep_in_rows(
    model: nn.Module,
    structure: Structure,
    units: Callable[[], Iterator[tuple[str, Tensor]]],
    share: float,
) -> dict[str, Tensor]:
    """Every output loses the same share, to a unit; together they lose the exact number."""
    modules = modules_of(model, structure)
    kept, done = {}, 0
    for name, scores in units():
        stored = isinstance(structure, SingleWeights)  # the others' units are outputs x units already
        rows = as_rows(modules[name], scores) if stored else scores
        if rows.isnan().any():
            raise ShrinkError(
                f"`scores` must not hold NaN, got NaN for {name!r}. Look for NaN in that module's weights and inputs."
            )
        ends = [round(share * (done + rows.shape[1] * row)) for row in range(len(rows) + 1)]
        counts = torch.tensor(ends, device=rows.device).diff()
        ranks = rows.argsort(dim=1, stable=True).argsort(dim=1)
        mask = ranks >= counts[:, None]
        kept[name] = as_rows(modules[name], mask) if stored else mask
        done += rows.numel()
    return kept


# ---------------------------------------------------------------------- methods that mend what stays
def _eliminate(
    model: nn.Module, structure: Structure, name: str, criterion: Method, rows: CalibrationRows, share: float
) -> None:
    """Layer by layer, so that each is mended for the inputs that the pruned ones before it give."""
    modules, counted = modules_of(model, structure), _Count(share)
    for layer in _layers(model, modules, rows):
        products = input_products(model, layer, rows)
        for weight, module in layer.items():
            mend(module, weight, name, criterion, products.pop(weight), counted.of(module))


def mend(module: Any, name: str, structure: str, criterion: Method, products: Tensor, count: int) -> None:
    """Prune one weight, and move what stays of it so that the outputs change least.

    Args:
        module: A linear map; its weight is changed in place.
        name: Of the weight.
        structure: "unstructured" or N:M.
        criterion: One that registers `update`.
        products: X^T X of the module's inputs.
        count: How many weights go.

    Raises:
        ShrinkError: If the inputs are not finite.
    """
    if not products.isfinite().all():
        raise ShrinkError(
            f"`model` must give finite numbers on the calibration rows, got inputs of {name} that are not. "
            "Look for an overflow in half precision, or load it in float32."
        )
    _, options = parse_structure(structure)
    with torch.no_grad():
        mended = criterion.facts["update"](as_rows(module, module.weight), products, count=count, **options)
        module.weight.copy_(as_rows(module, mended))


class _Count:
    """How many weights go from each module, so that their sum is the exact one."""

    def __init__(self, share: float) -> None:
        self._share, self._done = share, 0

    def of(self, module: Any) -> int:
        before, self._done = self._done, self._done + module.weight.numel()
        return round(self._share * self._done) - round(self._share * before)


def _layers(model: nn.Module, modules: Mapping[str, nn.Module], rows: CalibrationRows) -> list[dict[str, nn.Module]]:
    """The modules in the order in which the model runs them, those of one layer together."""
    layers: dict[str, dict[str, nn.Module]] = {}
    for name in run_order(model, modules, rows):
        found = re.match(r"(.+?\.\d+)\.", name)
        layers.setdefault(found[1] if found else name, {})[name] = modules[name]
    return list(layers.values())
