"""Checkpoints from which transformers 4 took heads out: `config.pruned_heads`, which transformers 5 does not load."""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor
from transformers import CONFIG_MAPPING, GenerationConfig, PretrainedConfig, PreTrainedModel

from hf_shrink.architectures import Architecture, architecture_of
from hf_shrink.architectures.bert import BERT, DISTILBERT, ROBERTA
from hf_shrink.architectures.gpt2 import GPT2
from hf_shrink.architectures.vit import VIT
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.remote import LOAD_ERRORS, explain_hub_error, looks_like_path
from hf_shrink.pruning.free_shapes import PRUNED_HEADS
from hf_shrink.pruning.layouts import Layout, SavedModel, save_pruned
from hf_shrink.versions import VIT_4

logger = logging.getLogger(__name__)

FAMILIES = (BERT, ROBERTA, DISTILBERT, VIT, GPT2)  # whose models transformers 4 could prune
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
NOT_COPIED = (".safetensors", ".bin", ".h5", ".msgpack", ".index.json", ".onnx")


@dataclass(frozen=True)
class HeadNames:
    """Where the heads of a checkpoint are.

    Args:
        inwards: Matches the names of what makes queries, keys and values; its first group is the layer.
        output: The same of the projection of the joined heads, its weight alone.
        parts: How many of queries, keys and values lie side by side in one tensor.
        transposed: Whether weights are stored as (in, out).
    """

    inwards: re.Pattern[str]
    output: re.Pattern[str]
    parts: int
    transposed: bool


def migrate_pruned_heads(checkpoint: str | Path, output_dir: str | Path, layout: Layout = "auto") -> SavedModel:
    """Convert a checkpoint whose heads transformers 4 pruned, so that every transformers loads it.

    Such a checkpoint names the heads in `config.pruned_heads` and lacks their weights; transformers 5 cannot load it.
    With "pad" (and "auto") the heads come back as zeros, which stock transformers loads and which compute the same;
    "remote" keeps them out, and loads with `trust_remote_code=True`. It runs under either line of transformers.

    Args:
        checkpoint: Folder or Hub id of a BERT, RoBERTa, DistilBERT, ViT or GPT-2, as safetensors or pickles (which
            are opened without running code), in one file or several.
        output_dir: Folder to write to; tokenizer and other small files are copied along.
        layout: As in `save_pruned`.

    Returns:
        Folder, layout and bytes.

    Raises:
        ShrinkError: If the checkpoint cannot be read, no heads were pruned in it, or it is no whole model.
    """
    source, target = _folder(checkpoint), Path(output_dir).expanduser()
    if target.exists() and target.resolve() == source.resolve():
        raise ShrinkError(f"`output_dir` must be another folder than the checkpoint, got {target}. Choose a new one.")
    config, pruned = _read_config(source)
    names = _head_names(architecture_of(config))
    filled = dict(_fill(_read_weights(source), pruned, names, config))
    model = _build(source, config, filled)
    logger.info("Put back %d heads in %d layers, as zeros.", sum(map(len, pruned.values())), len(pruned))
    saved = save_pruned(model, target, layout)
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith(NOT_COPIED) and not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)
    return saved


def _folder(checkpoint: str | Path) -> Path:
    if looks_like_path(checkpoint):
        folder = Path(checkpoint).expanduser()
        if not folder.is_dir():
            raise ShrinkError(f"`checkpoint` must be a folder or a Hub id, but {checkpoint} is none. Check the path.")
        return folder
    try:
        return Path(snapshot_download(str(checkpoint)))
    except LOAD_ERRORS as error:
        raise ShrinkError(explain_hub_error(error, "checkpoint", str(checkpoint))) from error


def _read_config(folder: Path) -> tuple[PretrainedConfig, dict[int, set[int]]]:
    """The config without its pruned heads, and those by layer."""
    if not (folder / "config.json").is_file():
        raise ShrinkError(f"`checkpoint` must hold a config.json, but {folder} does not. Check the path.")
    fields = json.loads((folder / "config.json").read_text())
    pruned = {
        int(layer): {int(head) for head in heads} for layer, heads in (fields.pop(PRUNED_HEADS, None) or {}).items()
    }
    pruned = {layer: heads for layer, heads in pruned.items() if heads}
    model_type = fields.get("model_type")
    types = sorted(name for family in FAMILIES for name in family.model_types)
    if model_type not in types:
        raise ShrinkError(
            f"`checkpoint` must be of a family whose heads transformers 4 could prune ({', '.join(types)}), got "
            f"model_type {model_type!r}. Load it with from_pretrained()."
        )
    if not pruned:
        raise ShrinkError(
            f"`checkpoint` must have `{PRUNED_HEADS}` in its config, but {folder} has none: there is nothing to "
            "migrate. Load it with from_pretrained()."
        )
    return CONFIG_MAPPING[model_type].from_dict(fields), pruned


def _head_names(architecture: Architecture) -> HeadNames:
    (stack,) = architecture.stacks
    attention, path = stack.attention, stack.path
    inwards, output = dict.fromkeys((attention.query, attention.key, attention.value)), attention.output
    if architecture is VIT:  # checkpoints bear the names of transformers 4
        path, inwards, output = VIT_4.layers, dict.fromkeys((VIT_4.query, VIT_4.key, VIT_4.value)), VIT_4.output
    layer = rf"(?:.*\.)?{re.escape(path)}\.(\d+)\."
    either = "|".join(map(re.escape, inwards))
    return HeadNames(
        inwards=re.compile(rf"{layer}(?:{either})\.(?:weight|bias)"),
        output=re.compile(rf"{layer}{re.escape(output)}\.weight"),
        parts=3 if attention.fused else 1,
        transposed=architecture.transposed_weights,
    )


def _read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        elif (folder / name).is_file():
            files = [name]
        else:
            continue
        for file in files:
            yield from _read_file(folder / file).items()
        return
    raise ShrinkError(
        f"`checkpoint` must hold {' or '.join(WEIGHT_FILES)}, but {folder} holds neither. Check the path."
    )


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _fill(
    weights: Iterator[tuple[str, Tensor]], pruned: Mapping[int, set[int]], names: HeadNames, config: PretrainedConfig
) -> Iterator[tuple[str, Tensor]]:
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    met: set[int] = set()
    for name, tensor in weights:
        inwards, output = names.inwards.fullmatch(name), names.output.fullmatch(name)
        found = inwards or output
        gone = pruned.get(int(found.group(1)), set()) if found else set()
        if found is None or not gone:
            yield name, tensor
            continue
        met.add(int(found.group(1)))
        kept = [head for head in range(heads) if head not in gone]
        parts = names.parts if inwards else 1
        rows = bool(inwards) != (names.transposed and tensor.ndim > 1)  # along which axis the heads lie
        axis = 0 if rows else 1
        if tensor.shape[axis] != parts * len(kept) * size:
            raise ShrinkError(
                f"`checkpoint` must hold {len(kept)} of {heads} heads in {name}, as its config says, got the shape "
                f"{tuple(tensor.shape)}. Save it anew with the transformers 4 that pruned it."
            )
        yield name, _spread(tensor, axis, parts, kept, (heads, size))
    if missing := pruned.keys() - met:
        raise ShrinkError(
            f"`checkpoint` must hold the layers whose heads its config calls pruned, but lacks {sorted(missing)}. "
            "Check the files."
        )


def _spread(tensor: Tensor, axis: int, parts: int, kept: list[int], whole: tuple[int, int]) -> Tensor:
    """Put heads where they were, with zeros between them."""
    heads, size = whole
    split = tensor.unflatten(axis, (parts, len(kept), size))
    shape = list(split.shape)
    shape[axis + 1] = heads
    spread = split.new_zeros(shape).index_copy_(axis + 1, torch.tensor(kept), split)
    return spread.flatten(axis, axis + 2)


def _build(folder: Path, config: PretrainedConfig, weights: dict[str, Tensor]) -> PreTrainedModel:
    name = (config.architectures or ["none"])[0]
    model_class: Any = getattr(transformers, name, None)
    if not isinstance(model_class, type) or not issubclass(model_class, PreTrainedModel):
        raise ShrinkError(
            f"`checkpoint` must name a class of transformers in its config's `architectures`, got {name!r}. Write the "
            "class that it was saved with there."
        )
    dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    loaded: Any = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ShrinkError(
            f"`checkpoint` must hold all weights of a {name}, but lacks {', '.join(missing[:3])}. Check the files."
        )
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()
