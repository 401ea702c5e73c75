"""One call for all quantizers: check, write beside the target, prove, move."""

import contextlib
import copy
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import PushToHubMixin

from hf_shrink.errors import ShrinkError, require
from hf_shrink.evaluation.environment import find_environment
from hf_shrink.inputs.models import base_folder, load_model, load_processing_class, model_name
from hf_shrink.inputs.tasks import PROBLEM_TYPES, find_task, inner_model
from hf_shrink.quantization.artifact import RECORD, QuantizedArtifact
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.proof import prove
from hf_shrink.registry import Method

LIBRARIES = ("hf_shrink", "torch", "transformers", "onnxruntime")


def quantize(
    model: PreTrainedModel | str | Path,
    method: str | Callable[..., dict[str, Any]] = "onnx-int8",
    *,
    output_dir: str | Path,
    processing_class: Any = None,
    task: str | None = None,
) -> QuantizedArtifact:
    """Write a quantized copy of a model, and prove that it loads and answers as the model does.

    Args:
        model: A float model in any float dtype, its folder or its Hub id. An instance stays as it is, mode included.
        method: Name in `QUANTIZERS`, or a function of the same signature.
        output_dir: New or empty folder. It gets the model in the layout of the runtime's stock class, its config, the
            tokenizer, and `quantization.json` with the method, its options, the versions and the proof.
        processing_class: Tokenizer or processor to save beside it; by default the one that lies beside `model`. A
            model made in memory has none: without this argument the folder then has none either.
        task: Name in `TASKS`, where the model's class does not tell.

    Returns:
        The artifact.

    Raises:
        ShrinkError: If the input is refused, the method's library is not installed, or the result does not answer as
            the model; `output_dir` is then as it was.
    """
    chosen, target = _resolve(method), Path(output_dir).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ShrinkError(f"`output_dir` must be new or empty, but {target} holds something. Choose another folder.")
    _check_anchor(target)
    _check_processing_class(processing_class)
    loaded = _check_float(load_model(model, task=task))
    found = find_task(loaded, task)
    float_model = to_float(copy.deepcopy(loaded) if loaded is model else loaded)
    with _stages(chosen) as step, _beside(target) as folder:
        record: dict[str, Any] = {"method": chosen.name, "source": model_name(model), "task": found}
        record |= chosen.function(float_model, found, folder, step)
        _save_config(float_model, task, folder)
        step("prove")
        processor = _find_processing_class(model) if processing_class is None else processing_class
        if processor is not None:
            processor.save_pretrained(folder)
        record["proof"] = prove(load_model(folder), float_model, found, chosen.name)
        versions = asdict(find_environment())
        record["versions"] = {library: versions[library] for library in LIBRARIES}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _move(folder, target)
    return QuantizedArtifact.from_pretrained(target)


def _resolve(method: str | Callable[..., dict[str, Any]]) -> Method:
    if callable(method):
        return Method(method.__name__, method, "")
    for library in QUANTIZERS[method].facts["libraries"]:
        require(library, extra=QUANTIZERS[method].facts["extra"])
    return QUANTIZERS[method]


def _check_anchor(target: Path) -> None:
    anchor = _anchor(target)
    if not anchor.is_dir() or not os.access(anchor, os.W_OK | os.X_OK):
        raise ShrinkError(f"`output_dir` must lie where one can write, but {anchor} is no such folder. Choose one.")


def _anchor(target: Path) -> Path:
    """The nearest folder above that is there: on the same disk, so that moving is renaming."""
    return next(parent for parent in target.absolute().parents if parent.exists())


def _check_processing_class(processing_class: Any) -> None:
    if processing_class is not None and not isinstance(processing_class, PushToHubMixin):
        raise ShrinkError(
            f"`processing_class` must be a tokenizer or processor, got {type(processing_class).__name__}. "
            "Load it with AutoTokenizer.from_pretrained()."
        )


def _check_float(model: Any) -> PreTrainedModel:
    if inner_model(model) is not model:
        raise ShrinkError("`model` must be whole, got one with a PEFT adapter. Give model.merge_and_unload().")
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a float transformers model, got {type(model).__name__}. Give the model it was made from."
        )
    packed = next((name for name, p in model.named_parameters() if p.dtype.itemsize < 2), None)
    if packed is not None or model.config.to_dict().get("quantization_config") is not None:
        raise ShrinkError(
            f"`model` must be a float model, but {type(model).__name__} is quantized already. "
            "Give the model it was made from."
        )
    return model


def _find_processing_class(model: Any) -> Any:
    if base_folder(model) is None:
        return None
    try:
        return load_processing_class(model)
    except ShrinkError as error:
        warnings.warn(f"The artifact is saved without a tokenizer. {error}", stacklevel=3)
        return None


def _save_config(model: PreTrainedModel, task: str | None, folder: Path) -> None:
    model.config.architectures = [type(model).__name__]  # a model that was never saved lacks it
    if task in PROBLEM_TYPES:
        model.config.update({"problem_type": task})  # what the caller said is not to be guessed again
    model.config.save_pretrained(folder)


@contextlib.contextmanager
def _stages(method: Method) -> Iterator[Callable[[str], None]]:
    total = method.facts.get("stages", 0) + 1  # the proof
    with tqdm(total=total, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}]") as bar:

        def step(name: str) -> None:
            bar.update(1 if bar.desc else 0)  # the one before is done
            bar.set_description_str(f"{method.name}: {name}")

        yield step
        bar.update(1)
        bar.set_description_str(f"{method.name}: done")


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_anchor(target), prefix=f".{target.name}-") as work:
        folder = Path(work) / "artifact"
        folder.mkdir()
        yield folder


def _move(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # The record last: where it lies, the rest does.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
        shutil.move(path, target / path.name)
