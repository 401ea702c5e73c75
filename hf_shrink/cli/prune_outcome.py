"""What came of `hf-shrink prune`: the files, what is compared, and what report and card say of both."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel

from hf_shrink.architectures import find_layers
from hf_shrink.cli.prune_settings import Pruning
from hf_shrink.inputs import load_model
from hf_shrink.pruning import compact, explain_export, save_pruned, sparsity_report
from hf_shrink.pruning.dead_units import find_blocks, find_widths
from hf_shrink.pruning.sparsity import PLAIN_FILES, SparsityReport

NOT_CUT = (
    "Nothing was cut out of the matrices: in a stock model all layers are equally wide, and the one that keeps most "
    "says how wide. --scope local prunes all alike."
)
REMOTE = "It loads with `trust_remote_code=True` alone."
UNITS: tuple[tuple[Literal["heads", "ffn"], str], ...] = (("heads", "heads"), ("ffn", "FFN units"))


@dataclass(frozen=True)
class Outcome:
    """A saved model.

    Args:
        saved: What is compared with the original.
        notes: Sentences for report and card.
        layout: Of the files.
    """

    saved: Any
    notes: tuple[str, ...] = ()
    layout: str = "native"


@dataclass(frozen=True)
class RemoteModel:
    """A folder with a modelling file that `save_pruned` has just written, and that can be trusted for that reason.

    Args:
        path: The folder.
    """

    path: Path

    def load(self) -> Any:
        """Load it.

        Returns:
            The model, in evaluation mode.
        """
        return load_model(self.path, trust_remote_code=True)


def save_masked(model: PreTrainedModel, tokenizer: Any, options: Pruning) -> Outcome:
    """Save a model with zeros in it, smaller where it can be cut, and say what its zeros are good for.

    Args:
        model: The pruned model.
        tokenizer: Its tokenizer or processor.
        options: What was asked for.

    Returns:
        The folder and notes.
    """
    found = sparsity_report(model.eval(), **options.patterns)
    model.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    share = f"{100 * found.prunable.share:.1f} % of the weights that pruning covers"
    notes = [f"{share} are zero."]
    if options.cuts_units and (cuts := _cuts(found)):
        smaller = compact(model)
        smaller.save_pretrained(options.output_dir)
        found = sparsity_report(smaller, **options.patterns)
        notes = [
            f"{share} were zero before the cut: {' and '.join(cuts)} in every layer. Of what is left, "
            f"{100 * found.prunable.share:.1f} % are zero."
        ]
    elif options.cuts_units:
        notes.append(NOT_CUT)
    if found.prunable.zeros:
        notes.append(PLAIN_FILES)
    return Outcome(options.output_dir, tuple(notes))


def save_searched(before: PreTrainedModel, model: PreTrainedModel, tokenizer: Any, options: Pruning) -> Outcome:
    """Save what was found within constraints, and say what was cut.

    Args:
        before: The model that was pruned.
        model: What came of it.
        tokenizer: Its tokenizer or processor.
        options: What was asked for.

    Returns:
        What to compare, and notes.
    """
    cuts = list(_fewer_layers(before, model))
    if options.uniform:
        model.save_pretrained(options.output_dir)
        tokenizer.save_pretrained(options.output_dir)
        return Outcome(options.output_dir, (_cut_note([*cuts, *_narrower(before, model)]),))
    layout: Any = options.layout or "auto"
    written = save_pruned(model, options.output_dir, layout, processing_class=tokenizer).layout
    (note,) = (row.note for row in explain_export(model).layouts if row.layout == written)
    notes = (_cut_note([*cuts, *_fewer_units(model)]), f"Layout {written}: {note}")
    if written == "remote":
        return Outcome(RemoteModel(options.output_dir), (*notes, REMOTE), written)
    return Outcome(options.output_dir, notes, written)


def save_plain(model: PreTrainedModel, tokenizer: Any, options: Pruning) -> Outcome:
    """Save a model of which no weights were pruned.

    Args:
        model: The model.
        tokenizer: Its tokenizer or processor.
        options: What was asked for.

    Returns:
        The folder.
    """
    model.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    return Outcome(options.output_dir)


def _cut_note(cuts: list[str]) -> str:
    return f"Cut: {', '.join(cuts)}." if cuts else "Nothing had to be cut: the model meets the constraints as it is."


def _cuts(found: SparsityReport) -> list[str]:
    return [
        f"`{units.field}` from {units.width} to {units.smallest}"
        for units in found.dead_units or ()
        if units.smallest < units.width
    ]


def _fewer_layers(before: PreTrainedModel, after: PreTrainedModel) -> Iterator[str]:
    left = find_layers(after)
    for stack, layers in find_layers(before).items():
        if len(left[stack]) < len(layers):
            yield f"{stack} layers from {len(layers)} to {len(left[stack])}"


def _narrower(before: PreTrainedModel, after: PreTrainedModel) -> Iterator[str]:
    """Config fields that speak for every layer."""
    now = {field: width.units * n for width in find_widths(after) for field, n in width.per_unit.items()}
    for width in find_widths(before):
        for field, count in width.per_unit.items():
            if now[field] < width.units * count:
                yield f"`{field}` from {width.units * count} to {now[field]}"


def _fewer_units(model: PreTrainedModel) -> Iterator[str]:
    """Units that live where each layer may have another number of them."""
    for kind, name in UNITS:
        live = [block.live for _, block in find_blocks(model, kind)]
        left, there = [int(units.sum()) for units in live], sum(map(len, live))
        if sum(left) < there:
            yield f"{name} of all layers left from {there} to {sum(left)} ({min(left)} to {max(left)} a layer)"
