"""What users hand to compare() and measure(), made into one loaded model with a name and a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

from transformers import PreTrainedModel

from hf_shrink.evaluation.size import size_on_disk
from hf_shrink.inputs import OnnxModel, base_folder, load_model, model_name


@runtime_checkable
class Artifact(Protocol):
    """A saved model that knows how to load itself, such as `QuantizedArtifact`."""

    @property
    def path(self) -> Path:
        """Its folder."""

    def load(self) -> Any:
        """The model, ready to be called."""


@runtime_checkable
class MethodArtifact(Artifact, Protocol):
    """An artifact that also says how it was made."""

    @property
    def method(self) -> str:
        """Name of the method, such as "onnx-int8"."""


@dataclass(frozen=True)
class Subject:
    """One loaded model.

    Args:
        model: A module or an `OnnxModel`.
        name: What a report may call it.
        method: How it was made, where it says so.
        source: Folder, Hub id or instance that it came from.
        folder: Where its files lie; None for an instance, whose weights may differ from those it was loaded from.
    """

    model: Any
    name: str
    method: str | None
    source: Any
    folder: Path | None


def load_subject(model: Any, task: str | None = None) -> Subject:
    """Load what a user names.

    Args:
        model: Instance, folder, Hub id or artifact.
        task: Name of the task, where it is known.

    Returns:
        The loaded model.
    """
    if isinstance(model, Artifact):
        method = model.method if isinstance(model, MethodArtifact) else None
        path = Path(model.path)
        return Subject(model.load(), model_name(path), method, path, path)
    loaded = load_model(model, task=task)
    if isinstance(loaded, OnnxModel):
        return Subject(loaded, model_name(model), None, loaded.path, loaded.path)
    folder = base_folder(model) if isinstance(model, (str, Path)) else None
    return Subject(loaded, model_name(model), None, model, folder)


@contextmanager
def saved(subject: Subject) -> Iterator[Path | None]:
    """A folder that holds the model as it is now.

    Args:
        subject: The model.

    Yields:
        Its own folder; a temporary one for an instance; None for a module that cannot save itself.
    """
    if subject.folder is not None or not isinstance(subject.model, PreTrainedModel):
        yield subject.folder
        return
    with TemporaryDirectory(prefix="hf_shrink-") as folder:
        subject.model.save_pretrained(folder)
        yield Path(folder)


def subject_size(subject: Subject, folder: Path) -> int:
    """Bytes of the model's weights.

    Args:
        subject: The model.
        folder: Where it is saved.

    Returns:
        Bytes; of a folder with several graphs, those of the one that is loaded.
    """
    if isinstance(subject.model, OnnxModel):
        file = subject.model.file
        others = set(folder.glob("*.onnx")) - {file}
        if others:
            return sum(path.stat().st_size for path in folder.glob(f"{file.name}*"))
    return size_on_disk(folder)
