"""How many weights are zero, of what, and what that is good for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import load_model, model_name
from hf_shrink.inputs.tasks import inner_model
from hf_shrink.pruning.dead_units import find_widths
from hf_shrink.pruning.targets import as_rows, find_targets

PATTERNS = ((2, 4), (4, 8))  # the strictest first: what keeps 2:4 keeps 4:8 too
PLAIN_FILES = (
    "Zeros in a dense file change neither its bytes nor the time that the model takes, unless a sparse format such as "
    "save_sparse()'s or a sparse runtime makes use of them."
)


@dataclass(frozen=True)
class ZeroCount:
    """Zeros among weights.

    Args:
        zeros: How many are zero, negative zero included.
        total: How many there are.
    """

    zeros: int
    total: int

    @property
    def share(self) -> float:
        """Share of zeros, in [0, 1]; 0 of nothing."""
        return self.zeros / self.total if self.total else 0.0


@dataclass(frozen=True)
class ModuleSparsity:
    """Zeros in the weight of one module.

    Args:
        name: Of the module.
        kind: "prunable" or "embedding".
        count: Its zeros.
        pattern: "2:4" or "4:8", where it keeps one.
    """

    name: str
    kind: str
    count: ZeroCount
    pattern: str | None


@dataclass(frozen=True)
class DeadUnits:
    """Units that add nothing to what comes out.

    Args:
        field: Config field that counts them.
        unit: What they are.
        dead: How many are dead, of all blocks.
        total: How many there are, of all blocks.
        width: What the field says.
        smallest: To what `compact` could lower it.
    """

    field: str
    unit: str
    dead: int
    total: int
    width: int
    smallest: int


@dataclass(frozen=True)
class SparsityReport:
    """Zeros of a model: prunable weights, embeddings and everything apart, since each alone can mislead.

    Args:
        model: Its name.
        prunable: Of the weights that pruning covers.
        embeddings: Of the embeddings.
        total: Of all parameters, tied ones once.
        modules: One entry for each prunable weight and each embedding.
        pattern: "2:4" or "4:8", where every prunable weight keeps it.
        dead_units: One entry for each width that can be cut; None where nothing is known of
            them: families unknown, adapters around.
    """

    model: str
    prunable: ZeroCount
    embeddings: ZeroCount
    total: ZeroCount
    modules: tuple[ModuleSparsity, ...]
    pattern: str | None
    dead_units: tuple[DeadUnits, ...] | None

    @property
    def notes(self) -> list[str]:
        """What the zeros are good for, a sentence or two each."""
        notes = [PLAIN_FILES, self._compaction()]
        if self.pattern is not None:
            n, m = self.pattern.split(":")
            notes.append(f"At most {n} of {m} consecutive inputs are not zero, in every prunable weight.")
        return notes

    def _compaction(self) -> str:
        if self.dead_units is None:
            return "What compact() could cut is not known: it takes plain models of known families."
        cuts = [
            f"`{units.field}` from {units.width} to {units.smallest}"
            for units in self.dead_units
            if units.smallest < units.width
        ]
        if cuts:
            return (
                f"compact() could cut {' and '.join(cuts)} in every layer, which makes the model smaller and faster."
            )
        dead = [f"{u.dead:,} of {u.total:,} {u.unit}" for u in self.dead_units if u.dead]
        if dead:
            return (
                f"compact() could cut nothing: {' and '.join(dead)} are dead, but one layer at least needs them all, "
                "and all layers are equally wide."
            )
        return "compact() could cut nothing: no FFN unit or head is dead as a whole."

    def to_dict(self) -> dict[str, Any]:
        """Make it JSON.

        Returns:
            Fields, shares in [0, 1] and notes.
        """
        return {
            "model": self.model,
            **{name: _with_share(getattr(self, name)) for name in ("prunable", "embeddings", "total")},
            "pattern": self.pattern,
            "dead_units": None if self.dead_units is None else [asdict(units) for units in self.dead_units],
            "modules": [
                {"name": m.name, "kind": m.kind, "pattern": m.pattern, **_with_share(m.count)} for m in self.modules
            ],
            "notes": self.notes,
        }

    def to_markdown(self) -> str:
        """Write it as Markdown.

        Returns:
            The three shares, the notes, and a table of the modules.
        """
        rows = [("Prunable weights", self.prunable), ("Embeddings", self.embeddings), ("All parameters", self.total)]
        lines = [
            *_table(("Sparsity", "Zeros", "Weights", "Share"), [(name, *_cells(count)) for name, count in rows]),
            "",
            *(f"- {note}" for note in self.notes),
            "",
            *_table(
                ("Module", "Zeros", "Weights", "Share", "Kind", "Pattern"),
                [(f"`{m.name}`", *_cells(m.count), m.kind, m.pattern or "–") for m in self.modules],
            ),
        ]
        return "\n".join(lines) + "\n"


def sparsity_report(
    model: nn.Module | str | Path,
    *,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = ("re:.*classifier.*",),
) -> SparsityReport:
    """Count the zeros of a model.

    Args:
        model: Any model, a folder or a Hub id.
        targets: What counts as prunable: names of classes ("Linear": every linear map) or of modules, or "re:" with a
            regular expression.
        ignore: What does not, in the same forms.

    Returns:
        Prunable weights, embeddings and all parameters apart, and what compact() could cut.
    """
    loaded = load_model(model)
    linears = find_targets(loaded, targets, ignore)
    rows = [
        ModuleSparsity(
            name,
            "prunable",
            _count([module.get_parameter("weight")]),
            _pattern(as_rows(module, module.get_parameter("weight").detach())),
        )
        for name, module in linears.items()
    ]
    tables = dict(_embeddings(loaded))
    rows += [ModuleSparsity(name, "embedding", _count([weight]), None) for name, weight in tables.items()]
    return SparsityReport(
        model=model_name(model),
        prunable=_count(module.get_parameter("weight") for module in linears.values()),
        embeddings=_count(tables.values()),
        total=_count(loaded.parameters()),
        modules=tuple(rows),
        pattern=_strictest([row.pattern for row in rows if row.kind == "prunable"]),
        dead_units=_dead_units(loaded),
    )


def _count(weights: Iterable[Tensor]) -> ZeroCount:
    # Tied weights count once; the number of elements tells a tensor from a view that begins where it does.
    own = {(weight.device, weight.data_ptr(), weight.numel()): weight.detach() for weight in weights}.values()
    total = sum(weight.numel() for weight in own)
    return ZeroCount(total - sum(int(weight.count_nonzero()) for weight in own), total)


def _embeddings(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights of the embeddings by name of the module, tied ones once."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            yield name, module.weight


def _pattern(rows: Tensor) -> str | None:
    for n, m in PATTERNS:
        if rows.shape[1] % m == 0 and bool(((rows.unflatten(1, (-1, m)) != 0).sum(-1) <= n).all()):
            return f"{n}:{m}"
    return None


def _strictest(patterns: Sequence[str | None]) -> str | None:
    """The pattern that all keep."""
    if None in patterns:
        return None
    return next((f"{n}:{m}" for n, m in reversed(PATTERNS) if f"{n}:{m}" in patterns), None)


def _dead_units(model: nn.Module) -> tuple[DeadUnits, ...] | None:
    if inner_model(model) is not model:  # what an adapter adds may revive a unit
        return None
    try:
        widths = find_widths(model)
    except ShrinkError:  # of an unknown family nothing is known to be a unit
        return None
    return tuple(DeadUnits(w.field, w.unit, w.dead, w.total, w.now, w.config[w.field]) for w in widths)


def _with_share(count: ZeroCount) -> dict[str, Any]:
    return {**asdict(count), "share": count.share}


def _cells(count: ZeroCount) -> tuple[str, str, str]:
    return f"{count.zeros:,}", f"{count.total:,}", f"{100 * count.share:.1f} %"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * 3, *["---"] * (len(header) - 4)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
