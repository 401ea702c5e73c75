"""One call for all quantizers: check, write beside the target, prove, move."""

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import base_folder, load_model, load_processing_class, model_name
from hf_shrink.inputs.tasks import find_task
from hf_shrink.quantization.artifact import QuantizedArtifact
from hf_shrink.quantization.backends import QUANTIZERS

LIBRARIES = ("hf_shrink", "torch", "transformers", "onnx", "onnxruntime")


def quantize(
    model: PreTrainedModel | str | Path,
    method: str = "onnx-int8",
    *,
    output_dir: str | Path,
    processing_class: Any = None,
    task: str | None = None,
) -> QuantizedArtifact:
    """Write a quantized copy of a model, and prove that it loads.

    Args:
        model: A float model, its folder or its Hub id; it is left as it is.
        method: Name in `QUANTIZERS`.
        output_dir: New or empty folder. It gets model, config and tokenizer, in the runtime's stock layout.
        processing_class: Tokenizer to save beside it; by default the one beside the model, where there is one.
        task: Name in `TASKS`, where the model's class does not tell.

    Returns:
        The artifact.

    Raises:
        ShrinkError: If the input is refused or the result does not load; `output_dir` is then as it was. A
            `MissingExtraError` where the method's library is not installed.
    """
    chosen, target = QUANTIZERS[method], Path(output_dir).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ShrinkError(f"`output_dir` must be new or empty, but {target} holds something. Choose another folder.")
    source, float_model = model_name(model), load_model(model)
    _check_float(float_model)
    found_task = find_task(float_model, task)
    if processing_class is None and base_folder(model) is not None:
        processing_class = load_processing_class(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
        folder = Path(work) / target.name
        folder.mkdir()
        chosen.function(float_model, folder, task=found_task)
        float_model.config.save_pretrained(folder)
        if processing_class is not None:
            processing_class.save_pretrained(folder)
        artifact = QuantizedArtifact(folder, method, source)
        artifact.write_record({name: importlib.metadata.version(name) for name in LIBRARIES})
        _prove(artifact)
        if target.exists():
            target.rmdir()
        shutil.move(folder, target)
    artifact.path = target
    return artifact


def _check_float(model: Any) -> None:
    if not isinstance(model, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a float transformers model, got {type(model).__name__}. Give the model it was made from."
        )
    integers = any(not p.dtype.is_floating_point for p in model.parameters())
    if (
        integers or getattr(model.config, "quantization_config", None) is not None
    ):  # set by the loaders of quantized models
        raise ShrinkError("`model` must be a float model, got a quantized one. Give the model it was made from.")


def _prove(artifact: QuantizedArtifact) -> None:
    """Load what lies on disk and ask it: a file that was written is not yet one that answers."""
    model: nn.Module = artifact.load()
    ids = torch.ones(2, 8, dtype=torch.long)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if not torch.isfinite(logits).all():
        raise ShrinkError(
            f"`model` must answer with finite numbers after {artifact.method}, but it gave others. "
            "Look for NaN among its weights."
        )
