"""Files of a pruned model: what stock transformers loads, padded or not, and exact shapes with a modelling file."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import transformers
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.pruning import modeling_hf_shrink
from hf_shrink.pruning.compaction import compact
from hf_shrink.pruning.cuts import check_plain
from hf_shrink.pruning.dead_units import Block, find_widths
from hf_shrink.pruning.free_shapes import blocks_of, cut_freely, fill_up, needed_units

logger = logging.getLogger(__name__)

Layout = Literal["auto", "native", "pad", "remote"]
LAYOUTS: tuple[Layout, ...] = ("auto", "native", "pad", "remote")
MODELING_FILE = "modeling_hf_shrink.py"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class SavedModel:
    """What was written.

    Args:
        path: The folder.
        layout: "native", "pad" or "remote".
        size_bytes: Of the weight files.
    """

    path: Path
    layout: str
    size_bytes: int


class Filling(NamedTuple):
    """Dead units that one block has to keep for its config's sake."""

    block: Block
    kept: int
    needed: int


def save_pruned(
    model: PreTrainedModel, path: str | Path, layout: Layout = "auto", *, processing_class: Any = None
) -> SavedModel:
    """Save a model whose FFN units or heads were pruned, without those that are dead.

    Args:
        model: A transformers model of a known family; it stays as it is. Units whose outgoing weights are all zero are
            dead. Of a model whose layers were made unequally wide already, what is missing counts as dead.
        path: Folder to write to.
        layout: "native" cuts all dead units and is loaded by stock transformers; refused where the config cannot say
            what is left. "pad" cuts to the widest layer and leaves zeros in the others: exact, loaded by stock
            transformers, larger. "remote" cuts every dead unit of every layer and writes a modelling file beside the
            weights; it loads with `trust_remote_code=True` alone. "auto" is "native" where that is possible, and else
            "pad".
        processing_class: Tokenizer or processor to save beside.

    Returns:
        Folder, layout and bytes.

    Raises:
        ShrinkError: If the layout is unknown or does not fit the model, or the model cannot be saved so.
    """
    check_plain(model, "save")
    if layout not in LAYOUTS:
        raise ShrinkError(f"`layout` must be one of {', '.join(LAYOUTS)}, got {layout!r}. Choose one of these.")
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ShrinkError(f"`path` must be a folder, but {folder} is a file. Give another one.")
    whole = fill_up(model)
    chosen = _choose(whole, layout)
    if chosen == "remote":
        _save_remote(whole, folder)
    else:
        compacted(whole).save_pretrained(folder)
        (folder / MODELING_FILE).unlink(missing_ok=True)  # of a model that was saved here before
    if processing_class is not None:
        processing_class.save_pretrained(folder)
    size = sum(file.stat().st_size for pattern in WEIGHTS for file in folder.glob(pattern))
    logger.info("Saved %s in %s, layout %s, %d bytes.", type(model).__name__, folder, chosen, size)
    return SavedModel(folder, chosen, size)


def compacted(model: PreTrainedModel) -> PreTrainedModel:
    """Cut a model to its widest layer, and say nothing where there is nothing to cut.

    Args:
        model: As its config describes it.

    Returns:
        A smaller copy, or the model itself.
    """
    return compact(model) if any(width.smallest < width.units for width in find_widths(model)) else model


def find_fillings(model: PreTrainedModel) -> list[Filling]:
    """Find the blocks that keep dead units in a model that stock transformers loads.

    Args:
        model: As its config describes it.

    Returns:
        Those blocks; none where the native layout loses nothing.
    """
    kept = native_units(model)
    counts = [Filling(block, kept[block.name], int(units.sum())) for block, units in needed_units(model)]
    return [filling for filling in counts if filling.kept > filling.needed]


def native_units(model: PreTrainedModel) -> dict[str, int]:
    """Count the units that stay where stock transformers is to load the model.

    Args:
        model: As its config describes it.

    Returns:
        By the name of a block.
    """
    whole = {block.name: len(block.live) for block in blocks_of(model)}
    return whole | {block.name: int(units.sum()) for width in find_widths(model) for block, units in width.kept()}


def explain_fillings(fillings: list[Filling]) -> str:
    """Name some of them.

    Args:
        fillings: At least one.

    Returns:
        Such as "3 of 22 in bert.encoder.layer.0.output.dense and in 2 more".
    """
    named = [f"{f.kept - f.needed} of {f.kept} in {f.block.name}" for f in fillings[:2]]
    return ", ".join(named) + (f" and more in {len(fillings) - 2} other blocks" if len(fillings) > 2 else "")


def _choose(model: PreTrainedModel, layout: Layout) -> Layout:
    if layout in ("pad", "remote"):
        return layout
    fillings = find_fillings(model)
    if not fillings:
        return "native"
    if layout == "native":
        raise ShrinkError(
            f'`layout` must fit the model, got "native" for one whose config cannot say what lives: dead units would '
            f'stay, {explain_fillings(fillings)}. Take "pad", which leaves them in as zeros, or "remote", which needs '
            "trust_remote_code=True; explain_export(model) shows what each costs."
        )
    return "pad"


def _save_remote(model: PreTrainedModel, folder: Path) -> None:
    smaller = cut_freely(model)
    logger.warning(
        "The remote layout loads only with trust_remote_code=True, which runs %s from the folder. "
        'layout="pad" is larger and loads anywhere.',
        MODELING_FILE,
    )
    smaller.config.auto_map = _auto_map(smaller)
    smaller.save_pretrained(folder)
    shutil.copyfile(str(modeling_hf_shrink.__file__), folder / MODELING_FILE)


def _auto_map(model: PreTrainedModel) -> dict[str, str]:
    """The automatic classes that load the model's family, with what they are to load."""
    module = MODELING_FILE.removesuffix(".py")
    found = {}
    for name in dir(transformers):
        if name.startswith("AutoModel"):
            mapping = vars(getattr(transformers, name)).get("_model_mapping") or {}
            target = mapping[type(model.config)] if type(model.config) in mapping else None
            if isinstance(target, type):
                found[name] = f"{module}.{target.__name__}"
    return found
