"""A model named by a folder or a Hub id becomes a model that can be called."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import transformers
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import nn
from transformers import AutoConfig, AutoProcessor, PretrainedConfig

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.graph_model import GraphModel
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.inputs.openvino import OpenVinoModel
from hf_shrink.inputs.remote import LOAD_ERRORS, explain_hub_error, list_hub_files, looks_like_path
from hf_shrink.inputs.tasks import TASKS, check_task, find_task, inner_model, model_config

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth")
PROCESSING_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "preprocessor_config.json",
    "processor_config.json",
)
DOWNLOAD_OPTIONS = ("revision", "token")
GRAPHS: Mapping[str, type[OnnxModel] | type[OpenVinoModel]] = {"onnx": OnnxModel, "xml": OpenVinoModel}
GRAPH_FILES = ("*.onnx", "*.onnx_data*", "*.onnx.data*", "openvino*", "*.json", "*.txt", "*.model")


def load_model(model: Any, *, task: str | None = None, **kwargs: Any) -> Any:
    """Load a model for inference.

    Args:
        model: A folder that `save_pretrained` or Optimum's export to ONNX or OpenVINO wrote, or a Hub id. An instance
            comes back as it is, in the mode (training or evaluation) in which it was given.
        task: Name in `TASKS`, where the checkpoint was saved with another head or with none; a head that the
            checkpoint lacks starts at random.
        **kwargs: Handed to `from_pretrained`, such as `num_labels` or `revision`; of an exported graph to the class of
            its runtime.

    Returns:
        A transformers model in evaluation mode, or a `GraphModel`.

    Raises:
        ShrinkError: If there is no such model, it may not be read, or it holds weights only as pickles.
    """
    if task is not None:
        check_task(task)
    if isinstance(model, (nn.Module, GraphModel)):
        return model
    if not isinstance(model, (str, Path)):
        raise ShrinkError(
            f"`model` must be a model, a folder or a Hub id, got {type(model).__name__}. Give one of these."
        )
    if str(model).endswith(".onnx"):
        return OnnxModel(model, **kwargs)
    source = _folder(model) if looks_like_path(model) else str(model)
    options = {key: kwargs[key] for key in DOWNLOAD_OPTIONS if key in kwargs}
    form = _weights_format(_root_files(source, options), source)
    if form in GRAPHS:
        if isinstance(source, str):
            source = Path(snapshot_download(source, allow_patterns=list(GRAPH_FILES), **options))
        return GRAPHS[form](source, **{key: value for key, value in kwargs.items() if key not in options})
    return _from_pretrained(source, task, kwargs)


def load_processing_class(source: Any, **kwargs: Any) -> Any:
    """Load what prepares a model's inputs.

    Args:
        source: Folder, Hub id, or a model that was loaded from one. A model of another revision than the Hub's main
            one does not tell so: give that `revision` again, or the tokenizer of main is loaded without a word.
        **kwargs: Handed to `from_pretrained`, such as `revision` or `token`.

    Returns:
        The tokenizer, image processor, feature extractor or processor that was saved there.

    Raises:
        ShrinkError: If nothing was saved there.
    """
    if not isinstance(source, (str, Path)):
        if not _origin(source):
            raise ShrinkError(
                f"`processing_class` must be given, because this {type(source).__name__} was not loaded from a folder "
                "or the Hub. Load it with AutoTokenizer.from_pretrained()."
            )
        source = _origin(source)
    place = _folder(source, "processing_class") if looks_like_path(source) else str(source)
    options = {key: kwargs[key] for key in DOWNLOAD_OPTIONS if key in kwargs}
    # Without this check some tokenizer classes come up with an empty vocabulary, and say nothing.
    if not set(PROCESSING_FILES) & set(_root_files(place, options, "processing_class", need_config=False)):
        raise ShrinkError(
            f"`processing_class` must be saved beside the model, but {source} holds no tokenizer or processor. "
            "Save it there with save_pretrained(), or give the loaded one."
        )
    try:
        return AutoProcessor.from_pretrained(place, trust_remote_code=False, **kwargs)
    except LOAD_ERRORS as error:
        message = explain_hub_error(error, "processing_class", str(source), "tokenizer or processor")
        raise ShrinkError(message) from error


def model_name(model: Any) -> str:
    """What a report or a card may call a model.

    Args:
        model: Instance, folder or Hub id.

    Returns:
        Hub id, name of the folder, or name of the class; never a path of this machine.
    """
    if isinstance(model, (str, Path)):
        return _public_name(model)
    if name := _origin(model):
        return _public_name(name)
    return type(inner_model(model) if isinstance(model, nn.Module) else model).__name__


def base_folder(model: Any) -> Path | None:
    """Where the files lie that a model was loaded from; its weights may have been trained since.

    Args:
        model: Instance, folder or Hub id.

    Returns:
        The folder, in the Hub's cache (revision main) for an id; None where there is none on this machine.
    """
    name = str(model) if isinstance(model, (str, Path)) else _origin(model)
    if not name:
        return None
    if isinstance(model, Path) or looks_like_path(name):
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a relative folder that is gone, with a name that no repository can bear
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _origin(model: Any) -> str:
    """Folder or Hub id that an instance was loaded from; "" where there is none."""
    if isinstance(model, OnnxModel):
        return str(model.path)
    config = model_config(model)
    return "" if config is None else config.name_or_path or ""


def _folder(source: str | Path, argument: str = "model") -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ShrinkError(f"`{argument}` must be a folder or a Hub id, but {source} {what}. Check the path.")
    return folder


def _root_files(
    source: str | Path, options: dict[str, Any], argument: str = "model", *, need_config: bool = True
) -> list[str]:
    if isinstance(source, Path):
        files = [path.name for path in source.iterdir()]
    else:
        files = [name for name in list_hub_files(source, argument=argument, **options) if "/" not in name]
    if need_config and "config.json" not in files:
        hint = "Save a model there with save_pretrained()."
        if "adapter_config.json" in files:
            hint = "It holds a PEFT adapter: load it with its base model, call merge_and_unload() and give the result."
        raise ShrinkError(f"`{argument}` must hold a config.json, but {source} does not. {hint}")
    return files


def _weights_format(files: Iterable[str], source: str | Path) -> str:
    suffixes = {PurePosixPath(name).suffix for name in files}
    for suffix in (".safetensors", ".onnx", ".xml"):
        if suffix in suffixes:
            return suffix[1:]
    if pickles := sorted(name for name in files if PurePosixPath(name).suffix in PICKLES and name not in NO_WEIGHTS):
        raise ShrinkError(
            f"`model` must hold safetensors, but {source} has its weights only as pickles, which can run code when "
            f"they are opened: {', '.join(pickles[:3])}. If you trust their author, convert them: load with "
            "transformers' own from_pretrained(), then save_pretrained() elsewhere."
        )
    raise ShrinkError(
        f"`model` must hold weights, but {source} has no *.safetensors or *.onnx file. "
        "Save the model there with save_pretrained()."
    )


def _from_pretrained(source: str | Path, task: str | None, kwargs: dict[str, Any]) -> nn.Module:
    options = {key: kwargs[key] for key in DOWNLOAD_OPTIONS if key in kwargs}
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except LOAD_ERRORS as error:
        raise ShrinkError(explain_hub_error(error, "model", str(source))) from error
    auto_class = getattr(transformers, _auto_class(config, find_task(config, task)))
    try:
        model = auto_class.from_pretrained(source, **{"trust_remote_code": False, "use_safetensors": True, **kwargs})
    except RuntimeError as error:  # the weights do not fit the config
        if vars(config).get("auto_map") and not kwargs.get("trust_remote_code"):
            raise ShrinkError(
                f"`model` must be loaded by the modelling file that lies beside its weights, got {source} without "
                "leave to run it. If you trust its author, load it with trust_remote_code=True and give the model."
            ) from error
        raise ShrinkError(
            f"`model` must hold weights that fit its config and the given options, but {source} does not: "
            f"{' '.join(str(error).split())[:300]} For a head of another size, add ignore_mismatched_sizes=True; it "
            "then starts at random."
        ) from error
    except LOAD_ERRORS as error:
        raise ShrinkError(explain_hub_error(error, "model", str(source))) from error
    return model.eval()


def _auto_class(config: PretrainedConfig, task: str) -> str:
    if task == "seq2seq_lm" and type(config) in transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
        return "AutoModelForSpeechSeq2Seq"
    return TASKS[task].auto_class


def _public_name(source: str | Path) -> str:
    parts = Path(source).expanduser().parts
    if cached := [part for part in parts if part.startswith("models--")]:
        return cached[-1].removeprefix("models--").replace("--", "/", 1)
    if not looks_like_path(source):
        return str(source)
    return re.sub(r"\.onnx$", "", Path(source).expanduser().resolve().name) or "model"
