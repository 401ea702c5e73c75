"""What each file layout of a pruned model costs, and which of them loads where."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from hf_shrink.inputs.models import model_name
from hf_shrink.pruning.costs import Cost, count_costs
from hf_shrink.pruning.cuts import check_plain
from hf_shrink.pruning.free_shapes import fill_up, needed_units
from hf_shrink.pruning.layouts import explain_fillings, find_fillings, native_units

STOCK, REMOTE = "stock from_pretrained", "trust_remote_code=True"


@dataclass(frozen=True)
class LayoutCosts:
    """One layout of a model.

    Args:
        layout: "native", "pad" or "remote".
        exact: Whether what it saves computes what the model computes, without its dead units as far as it claims.
        loads_with: What it takes to load it.
        parameters: How many there are; None where the layout cannot be.
        size_bytes: Of the weight file, about.
        macs: Multiply-accumulates of one row.
        note: Why it cannot be, or what is left in it.
    """

    layout: str
    exact: bool
    loads_with: str
    parameters: int | None
    size_bytes: int | None
    macs: int | None
    note: str


@dataclass(frozen=True)
class ExportTable:
    """The layouts that `save_pruned` can write of a model.

    Args:
        model: Its name.
        sequence_length: Tokens of the row that MACs are counted on, clipped to the model's positions.
        parameters: Of the model with its dead units.
        size_bytes: Of its weight file, about.
        macs: Of one row.
        layouts: One entry for each.
        automatic: The layout that "auto" takes.
    """

    model: str
    sequence_length: int
    parameters: int
    size_bytes: int
    macs: int
    layouts: tuple[LayoutCosts, ...]
    automatic: str

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Write it as Markdown.

        Returns:
            A table of the layouts, and a sentence on each.
        """
        rows = [("with its dead units", "", "", *_cells(self.parameters, self.size_bytes, self.macs))]
        rows += [
            (
                f"`{row.layout}`",
                "yes" if row.exact else "no",
                row.loads_with if row.exact else "–",
                *_cells(row.parameters, row.size_bytes, row.macs),
            )
            for row in self.layouts
        ]
        lines = [
            f"| {self.model} | exact | loads with | parameters | bytes | MACs |",
            "| --- | --- | --- | ---: | ---: | ---: |",
            *(f"| {' | '.join(cells)} |" for cells in rows),
            "",
            *(f"- `{row.layout}`: {row.note}" for row in self.layouts),
            f"- `auto` is `{self.automatic}`. MACs are those of one row of {self.sequence_length} tokens.",
        ]
        return "\n".join(lines) + "\n"


def explain_export(model: PreTrainedModel, *, sequence_length: int = 128) -> ExportTable:
    """Show what each layout of `save_pruned` would write: whether it is exact, what loads it, and what it costs.

    Args:
        model: A transformers model of a known family, with dead units or already without.
        sequence_length: Tokens of the row that MACs are counted on, clipped to the model's positions.

    Returns:
        The table; `print` shows it.
    """
    check_plain(model, "explain")
    whole = fill_up(model)
    table, fillings = count_costs(whole, sequence_length), find_fillings(whole)
    full = {block.name: len(units) for block, units in needed_units(whole)}
    even = _left(table.total, table.units, full, native_units(whole))
    free = _left(
        table.total, table.units, full, {block.name: int(units.sum()) for block, units in needed_units(whole)}
    )
    unknown = [block.name for block, units in needed_units(whole) if block.counts is None and not units.all()]
    where = explain_fillings(fillings) if fillings else ""
    layouts = (
        _layout("native", None if fillings else even, STOCK, f"dead units would stay: {where}." if where else NOTHING),
        _layout("pad", even, STOCK, _padding(even, free, where) if where else NOTHING),
        _layout(
            "remote",
            None if unknown else free,
            REMOTE,
            f"it is not known where the family keeps its number of heads, in {unknown[0]}." if unknown else EVERYTHING,
        ),
    )
    total = table.total
    return ExportTable(
        model_name(model),
        sequence_length,
        *(round(total.parameters), round(total.bytes), round(total.macs)),
        layouts,
        "pad" if fillings else "native",
    )


NOTHING = "no dead unit is left."
EVERYTHING = "no dead unit is left; runs modeling_hf_shrink.py from the folder."


def _padding(even: Cost, free: Cost, where: str) -> str:
    filled = even - free
    return (
        f"zeros fill up {where}: {100 * filled.bytes / even.bytes:.1f} % of the bytes and "
        f"{100 * filled.macs / even.macs:.1f} % of the MACs."
    )


def _left(total: Cost, units: Mapping[str, Cost], full: Mapping[str, int], kept: Mapping[str, int]) -> Cost:
    for name, count in full.items():
        total = total - units[name] * (count - kept[name])
    return total


def _layout(layout: str, cost: Cost | None, loads_with: str, note: str) -> LayoutCosts:
    if cost is None:
        return LayoutCosts(layout, False, loads_with, None, None, None, note)
    return LayoutCosts(layout, True, loads_with, round(cost.parameters), round(cost.bytes), round(cost.macs), note)


def _cells(*numbers: int | None) -> tuple[str, ...]:
    return tuple("–" if number is None else f"{number:,}" for number in numbers)
