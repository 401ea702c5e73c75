"""What users hand to compare() and measure(), made into a loaded model with a name and a place on disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.graph_model import GraphModel
from hf_shrink.inputs.models import base_folder, load_model, model_name
from hf_shrink.inputs.onnx import OnnxModel
from hf_shrink.inputs.saving import save_model
from hf_shrink.inputs.tasks import inner_model


@runtime_checkable
class Artifact(Protocol):
    """A shrunk model on disk that knows how it is loaded."""

    @property
    def path(self) -> Path:
        """The folder."""

    def load(self) -> Any:
        """Load a model that is called as a transformers model is."""


@runtime_checkable
class NamedArtifact(Artifact, Protocol):
    """An artifact that knows the method it was made with."""

    @property
    def method(self) -> str:
        """Name in the method's registry."""


@dataclass(frozen=True)
class Candidate:
    """One loaded model.

    Args:
        name: What a report calls it.
        method: How it was made, where that is known.
        source: Folder, Hub id or instance that it came from.
        model: A module or a `GraphModel`.
    """

    name: str
    method: str | None
    source: Any
    model: Any


def load_candidate(model: Any, task: str | None = None) -> Candidate:
    """Load what a user named.

    Args:
        model: Instance, folder, Hub id or artifact.
        task: Name in `TASKS`, where it is known.

    Returns:
        The loaded model.
    """
    if isinstance(model, Artifact) and not isinstance(model, nn.Module):
        method = model.method if isinstance(model, NamedArtifact) else None
        return Candidate(model_name(model.path), method, model.path, model.load())
    return Candidate(model_name(model), None, model, load_model(model, task=task))


@contextmanager
def on_disk(candidate: Candidate) -> Iterator[Path | None]:
    """Where a model's files lie, as it is now.

    Args:
        candidate: The model.

    Yields:
        Its folder, or the one .onnx file; for an instance, whose weights may have changed since they were loaded, a
        folder that is gone afterwards; None for a module that cannot save itself.

    Raises:
        ShrinkError: If it would save a part of itself only.
    """
    model, source = candidate.model, candidate.source
    if isinstance(model, OnnxModel):
        yield model.file  # one of several, perhaps
    elif isinstance(model, GraphModel):
        yield model.path
    elif isinstance(source, str | Path) and (folder := base_folder(source)) is not None:
        yield folder
    elif isinstance(model, PreTrainedModel):
        with tempfile.TemporaryDirectory(prefix="hf_shrink-") as temporary:
            save_model(model, Path(temporary), "model")
            yield Path(temporary)
    elif isinstance(model, nn.Module) and inner_model(model) is not model:
        raise ShrinkError(
            f"`model` must be saved whole to be measured, got {type(model).__name__}, which saves its adapter alone. "
            "Call merge_and_unload() and give the result."
        )
    else:
        yield None
