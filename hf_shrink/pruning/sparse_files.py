"""Folders in which zeros take one bit: safetensors with a bitmask and the values that are not zero."""

import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from accelerate import init_empty_weights
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.remote import LOAD_ERRORS
from hf_shrink.pruning.sparse_format import CODES, read_metadata, read_shapes, read_tensors, write_tensors

logger = logging.getLogger(__name__)

SPARSE_FILE = "sparse_model.safetensors"  # a name that stock from_pretrained does not take for a dense model's
FORMAT_KEY, FORMAT = "hf_shrink_sparse", "1"
OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


def save_sparse(model: PreTrainedModel, path: str | Path) -> None:
    """Save a model so that each of its zeros takes one bit.

    A tensor that gets smaller so is stored as a bitmask and the values that are not zero, any other one as it is; all
    come back to the last bit. In bfloat16 half of the weights at zero make 56 % of the dense file, 90 % make 16 %;
    computing takes as long as before. It needs memory for one tensor at most, however many there are.

    Stock `from_pretrained` does not load this folder (it says that there is no model in it): `load_sparse` does. The
    model's own `save_pretrained` writes one that loads everywhere.

    Args:
        model: A transformers model with plain weights.
        path: Folder to write to; other files in it, such as a tokenizer, stay, but it may hold no other weights.
    """
    _check_model(model)
    folder = _check_folder(Path(path))
    tensors, tied = _own_tensors(model)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{SPARSE_FILE}.{os.getpid()}"
    try:
        with unfinished.open("wb") as file:
            packed = write_tensors(file, tensors, {FORMAT_KEY: FORMAT, "tied": json.dumps(tied)})
            file.flush()
            os.fsync(file.fileno())
        _save_config(model, folder)
        unfinished.replace(folder / SPARSE_FILE)
    finally:
        unfinished.unlink(missing_ok=True)
    logger.info(
        "Saved %s in %s, %d of %d tensors packed. Stock from_pretrained does not load this folder: use load_sparse(), "
        "or save_pretrained() for one that loads everywhere.",
        *(type(model).__name__, folder, len(packed), len(tensors)),
    )


def load_sparse(path: str | Path) -> PreTrainedModel:
    """Load a model that `save_sparse` saved.

    Args:
        path: The folder.

    Returns:
        The model with the class that it was saved with, its weights dense, bit for bit and tied as they were, on the
        CPU and in evaluation mode. Beyond its own memory, that of one tensor is needed.

    Raises:
        ShrinkError: If the folder does not hold such a model, or this transformers builds it otherwise.
    """
    folder = Path(path).expanduser()
    file = _find_file(folder)
    try:
        tied = _check_format(read_metadata(file), folder)
        model = _empty_like(folder)
        _fill(model, file, tied)
    except SafetensorError as error:
        raise ShrinkError(
            f"`path` must hold a whole {SPARSE_FILE}, got a broken one in {folder}: {error}. Save it anew."
        ) from error
    return model.eval()


def _check_model(model: Any) -> None:
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel) or getattr(transformers, name, None) is not type(model):
        raise ShrinkError(
            f"`model` must be of a class that transformers has, so that load_sparse() finds it, got {name}. "
            "For PEFT give merge_and_unload(), for any other class use save_pretrained()."
        )
    for key, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.dtype not in CODES:
            what = "meta device" if isinstance(tensor, Tensor) and tensor.is_meta else type(tensor).__name__
            raise ShrinkError(
                f"`model` must hold plain tensors in memory, got {key} as {what}. Load it without offloading and "
                "without quantization_config."
            )
    if vars(model.config).get("quantization_config") is not None:
        raise ShrinkError(
            f"`model` must have float weights, got a quantized {name}. Its own save_pretrained() stores it packed."
        )
    _check_names(_build(type(model), model.config), _shapes(model), "`model`")


def _check_folder(folder: Path) -> Path:
    folder = folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise ShrinkError(f"`path` must be a folder, but {folder} is a file. Give another one.")
    own = folder / SPARSE_FILE
    if others := sorted({p.name for pattern in OTHER_WEIGHTS for p in folder.glob(pattern)} - {SPARSE_FILE}):
        raise ShrinkError(
            f"`path` must hold no other weights, which stock from_pretrained would load with this config, got "
            f"{', '.join(others[:3])} in {folder}. Give another folder."
        )
    if own.exists() and not _is_ours(own):
        raise ShrinkError(
            f"`path` must not hold a file that save_sparse() did not write, got {SPARSE_FILE} in {folder}. "
            "Give another folder."
        )
    return folder


def _is_ours(file: Path) -> bool:
    try:
        return FORMAT_KEY in read_metadata(file)
    except (SafetensorError, OSError):
        return False


def _own_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and for every further name of one of them the name that it is stored by."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[Any, str] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        first = names.setdefault(place if tensor.numel() else name, name)  # empty ones have no place of their own
        if first == name:
            tensors[name] = tensor
        else:
            tied[name] = first
    return tensors, tied


def _save_config(model: PreTrainedModel, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _find_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise ShrinkError(f"`path` must be a folder that save_sparse() wrote, got {folder}. Check the path.")
    if not (folder / SPARSE_FILE).is_file():
        others = sorted({file.name for pattern in OTHER_WEIGHTS for file in folder.glob(pattern)})
        hint = f"It holds {others[0]}: load it with from_pretrained()." if others else "Write it with save_sparse()."
        raise ShrinkError(f"`path` must hold {SPARSE_FILE}, but {folder} does not. {hint}")
    return folder / SPARSE_FILE


def _check_format(metadata: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The ties of a file of ours."""
    if (found := metadata.get(FORMAT_KEY)) != FORMAT:
        what = "that save_sparse() did not write" if found is None else f"of format {found}, from a newer hf_shrink"
        raise ShrinkError(
            f"`path` must hold a file of format {FORMAT}, but {SPARSE_FILE} in {folder} is one {what}. "
            + ("Write it with save_sparse()." if found is None else "Update hf_shrink.")
        )
    return json.loads(metadata["tied"])


def _empty_like(folder: Path) -> PreTrainedModel:
    """The model that the folder's config describes, with weights on the meta device."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ShrinkError(f"`path` must hold the model's config.json, but {folder}: {error}. Save it anew.") from error
    name = (config.architectures or ["none"])[0]
    model_class = getattr(transformers, name, None)
    if not isinstance(model_class, type) or not issubclass(model_class, PreTrainedModel):
        raise ShrinkError(
            f"`path` must name a class of transformers in its config's architectures, but {folder} names {name}. "
            "Load it with the transformers that it was saved with."
        )
    model = _build(model_class, config)
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _build(model_class: Any, config: PretrainedConfig) -> PreTrainedModel:
    # Buffers stay off the meta device: those that no file holds, such as rotary frequencies, are worked out here.
    with init_empty_weights(include_buffers=False):
        return model_class._from_config(copy.deepcopy(config), dtype=config.dtype)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_names(model: PreTrainedModel, found: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Check that what was found is all that a model built from its config holds, in the same shapes."""
    own = _shapes(model)
    if differing := sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name)):
        shown = ", ".join(f"{name} {found.get(name)} for {own.get(name)}" for name in differing[:3])
        saved_with = vars(model.config).get("transformers_version")
        raise ShrinkError(
            f"{what} must hold the tensors of a {type(model).__name__} built from its config, but {len(differing)} "
            f"differ: {shown}. Merge adapters first, and load with the transformers that saved it ({saved_with})."
        )


def _fill(model: PreTrainedModel, file: Path, tied: Mapping[str, str]) -> None:
    shapes = read_shapes(file)
    _check_names(model, shapes | {name: shapes[first] for name, first in tied.items()}, "`path`")
    for name, tensor in read_tensors(file):
        _place(model, name, tensor)
    for name, first in tied.items():
        _place(model, name, _slot(model, first))


def _slot(model: nn.Module, name: str) -> Tensor:
    around, _, leaf = name.rpartition(".")
    module = model.get_submodule(around)
    found = module._parameters.get(leaf)
    return module._buffers[leaf] if found is None else found  # type: ignore[return-value]


def _place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor where a model built from its config has one of this name; a tied one is the parameter itself."""
    around, _, leaf = name.rpartition(".")
    module = model.get_submodule(around)
    empty = module._parameters.get(leaf)
    if empty is None:
        module._buffers[leaf] = tensor.detach()
    elif isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        trains = empty.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=trains)
