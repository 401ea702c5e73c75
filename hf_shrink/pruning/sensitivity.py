"""Which modules take pruning worst: each pruned alone, and the loss held against the dense model's."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import CalibrationRows, RowOptions, read_rows
from hf_shrink.inputs.datasets import dataset_name
from hf_shrink.inputs.models import load_model
from hf_shrink.pruning.calibration import input_products, mean_loss
from hf_shrink.pruning.config import DEFAULT_IGNORE
from hf_shrink.pruning.element_scores import element_scores, modules_of
from hf_shrink.pruning.one_shot import (
    apply_masks,
    choose_masks,
    find_criterion,
    find_scope,
    find_share,
    mend,
)
from hf_shrink.pruning.selection import keep_highest
from hf_shrink.pruning.structures import Structure, make_structure
from hf_shrink.pruning.structures.structure import ElementScores
from hf_shrink.registry import Method

ANNOTATED = 60  # modules: of more, numbers in the cells would be too small to read
Trial = Callable[[float], AbstractContextManager[None]]  # a module is pruned to the share while it lasts


@dataclass(frozen=True)
class SensitivityTable:
    """How much the loss rises if one module alone is pruned.

    Args:
        method: Name of the criterion.
        structure: What goes as a whole.
        sparsities: Shares of the module's weights that go; the columns.
        modules: Names; the rows. Of "neurons" and "heads" each stands for its whole block.
        rises: For each module, one rise of the mean loss for each sparsity, in the loss's own unit; below 0 where
            pruning helped.
        dense_loss: Of the model as it is.
        dataset: What the report calls it.
        rows: Rows that the loss is the mean over.
    """

    method: str
    structure: str
    sparsities: tuple[float, ...]
    modules: tuple[str, ...]
    rises: tuple[tuple[float, ...], ...]
    dense_loss: float
    dataset: str
    rows: int

    def fragile(self, sparsity: float, max_rise: float) -> list[str]:
        """Find the modules that take pruning worst; given as `ignore`, they are left alone.

        Args:
            sparsity: One of the table's.
            max_rise: Of the loss, that is still accepted.

        Returns:
            Names of the modules above it, the worst first; a loss that is not a number counts as infinite.

        Raises:
            ShrinkError: If the table lacks the sparsity.
        """
        if sparsity not in self.sparsities:
            raise ShrinkError(
                f"`sparsity` must be one of {list(self.sparsities)} (the table's), got {sparsity}. Choose one."
            )
        column = self.sparsities.index(sparsity)
        rises = {name: row[column] for name, row in zip(self.modules, self.rises, strict=True)}
        found = {name: math.inf if math.isnan(rise) else rise for name, rise in rises.items() if not rise <= max_rise}
        return sorted(found, key=lambda name: -found[name])

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values.

        Returns:
            Its fields.
        """
        return asdict(self)

    def to_markdown(self) -> str:
        """The table as Markdown.

        Returns:
            One row for each module, and the conditions below.
        """
        header = ["Module", *(f"{100 * sparsity:g} %" for sparsity in self.sparsities)]
        lines = [header, ["---", *["---:"] * len(self.sparsities)]]
        lines += [[f"`{name}`", *map(_signed, rises)] for name, rises in zip(self.modules, self.rises, strict=True)]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", self._conditions()]) + "\n"

    def plot(self, path: str | Path) -> Path:
        """Draw the table as a heat map.

        Args:
            path: The picture; its ending chooses the format (.png, .svg, .pdf).

        Returns:
            The path written.
        """
        from matplotlib.figure import Figure

        height = max(2.4, 1.3 + 0.2 * len(self.modules))
        figure = Figure(figsize=(7.2, height), dpi=160, layout="constrained")  # not pyplot: its state would leak
        axes = figure.add_subplot()
        shown = torch.tensor(self.rises).nan_to_num(nan=math.inf).clamp_min(0)
        top = max((rise for rise in shown.flatten().tolist() if rise < math.inf), default=0.0) or 1.0
        image = axes.imshow(shown.clamp_max(top).numpy(), aspect="auto", cmap="OrRd", vmin=0, vmax=top)
        axes.set_yticks(range(len(self.modules)), self.modules, fontsize=7)
        axes.set_xticks(range(len(self.sparsities)), [f"{100 * s:g} %" for s in self.sparsities])
        axes.set_xlabel(f"Share pruned ({self.method}, {self.structure})")
        axes.set_title(f"Loss of {self.dense_loss:.4g} dense, one module pruned", fontsize=11, loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, label="Rise of the loss")
        for row, rises in enumerate(self.rises if len(self.modules) <= ANNOTATED else ()):
            for column, rise in enumerate(rises):
                color = "white" if shown[row, column] > 0.6 * top else "#33415c"
                axes.text(column, row, _signed(rise), ha="center", va="center", fontsize=6, color=color)
        figure.savefig(path)
        return Path(path)

    def _conditions(self) -> str:
        return (
            f"Rise of the mean loss over {self.rows:,} rows of {self.dataset} (dense: {self.dense_loss:.4g}) if the "
            f"module alone is pruned to the share ({self.method}, {self.structure})."
        )


def pruning_sensitivity(
    model: Any,
    dataset: Any,
    *,
    method: str | Callable[[Tensor, None], Tensor] = "magnitude",
    structure: str = "unstructured",
    sparsities: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (DEFAULT_IGNORE,),
    split: str | None = None,
    task: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    seed: int = 0,
) -> SensitivityTable:
    """Find which modules take pruning worst: each is pruned alone, to each sparsity, and put back.

    It takes a pass over the rows for each number of the table: some hundred rows tell enough. Methods that read rows
    read the same ones.

    Args:
        model: A model, a folder or a Hub id; an instance is put back to the last bit, also after an error.
        dataset: Labelled rows: a `Dataset`, or a path or Hub id.
        method: As for `prune`.
        structure: As for `prune`, one name. With "neurons" and "heads" a whole block is pruned alone.
        sparsities: Shares in [0, 1) to prune to.
        targets: What is pruned, as for `PruningConfig`.
        ignore: What is not, in the same forms.
        split: Of the dataset, where it has several.
        task: Name in `TASKS`; found from the model if None.
        processing_class: What prepares raw rows; loaded from where the model was if None and needed.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        data_collator: Makes a padded batch; None takes the one of the task.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        seed: Of "random", and of a collator that masks at random.

    Returns:
        The table.

    Raises:
        ShrinkError: If the model cannot be pruned so, or the rows lack labels.
    """
    criterion = find_criterion(method)
    if not sparsities:
        raise ShrinkError("`sparsities` must hold at least one share, got []. Write half of the weights as 0.5.")
    shares = [find_share(structure, sparsity) for sparsity in sparsities]
    scope = find_scope(criterion, structure, None)
    loaded = load_model(model)
    if not isinstance(loaded, nn.Module):
        raise ShrinkError(
            f"`model` must be a transformers model, got {type(loaded).__name__}. Give the model it was made from."
        )
    laid = make_structure(loaded, structure, targets, ignore)
    options = RowOptions(
        split, task, processing_class, text_column, label_column, data_collator, batch_size, max_length, seed
    )
    rows = read_rows(loaded, model, dataset, options, labelled=True)
    dense = mean_loss(loaded, rows)
    if "update" in criterion.facts:
        trials = _mendings(loaded, laid, structure, criterion, rows)
    else:
        trials = _maskings(loaded, laid, structure, scope, element_scores(loaded, laid, criterion, rows, seed))
    found: dict[str, tuple[float, ...]] = {}
    with tqdm(total=len(trials) * len(shares), desc="Pruning each alone", leave=False) as bar:
        for name, pruned in trials.items():
            rises = []
            for share in shares:
                with pruned(share):
                    rises.append(mean_loss(loaded, rows) - dense)
                bar.update()
            found[name] = tuple(rises)
    return SensitivityTable(
        method=criterion.name,
        structure=structure,
        sparsities=tuple(sparsities),
        modules=tuple(found),
        rises=tuple(found.values()),
        dense_loss=dense,
        dataset=dataset_name(dataset),
        rows=len(rows.rows),
    )


def _maskings(model: nn.Module, laid: Structure, structure: str, scope: str, score: ElementScores) -> dict[str, Trial]:
    every = {name: torch.ones_like(units, dtype=torch.bool) for name, units in laid.unit_scores(score)}

    @contextmanager
    def masked(name: str, share: float) -> Iterator[None]:
        if name not in laid.scored:  # a set that spans several modules
            units = [(n, values) for n, values in laid.unit_scores(score) if n == name]
            kept = keep_highest(lambda: units, share, "global")
            masks = laid.masks({**every, **kept}, score)
        else:
            alone = make_structure(model, structure, [name.removesuffix(".weight")], [])
            masks = choose_masks(model, alone, score, share, scope)
        changed = {n: mask for n, mask in masks.items() if not mask.all()}
        with _restored([laid.parameters[n] for n in changed]):
            apply_masks(laid, changed)
            yield

    return {_module_of(model, laid, every, name, score): partial(masked, name) for name in every}


def _mendings(
    model: nn.Module, laid: Structure, structure: str, criterion: Method, rows: CalibrationRows
) -> dict[str, Trial]:
    @contextmanager
    def mended(name: str, module: Any, share: float) -> Iterator[None]:
        products = input_products(model, {name: module}, rows)[name]
        with _restored([module.weight]):
            mend(module, name, structure, criterion, products, round(share * module.weight.numel()))
            yield

    modules = modules_of(model, laid)
    return {name.removesuffix(".weight"): partial(mended, name, module) for name, module in modules.items()}


def _module_of(model: nn.Module, laid: Structure, every: Mapping[str, Tensor], name: str, score: ElementScores) -> str:
    """The name of a set as `ignore` takes it: of a module without which the set is left out."""
    if name in laid.scored:
        return name.removesuffix(".weight")
    if name in dict(model.named_modules()):
        return name
    masks = laid.masks({**every, name: torch.zeros_like(every[name])}, score)
    return next(n for n, mask in masks.items() if not mask.all()).rpartition(".")[0]


@contextmanager
def _restored(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _signed(rise: float) -> str:
    return f"{rise:+.3g}"
