"""What of a model's folder goes to the Hub: weights and what loads them, never a trainer's states or pickles."""

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.models import PICKLES

REPORT, CARD = "shrink_report.json", "README.md"
WEIGHTS = (".safetensors", ".onnx", ".gguf")
PICKLED = (*PICKLES, ".pickle", ".joblib", ".npy", ".npz")
LEFT_HERE = (  # states of a run, and traces of the machine that it ran on
    "stage.json",
    "trainer_state.json",
    "training_args.*",
    "optimizer.*",
    "scheduler.*",
    "scaler.*",
    "rng_state*",
    "random_states*",
    "events.out.tfevents*",
    "*.lock",
    "*.tmp",
    "*.pyc",
)
SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
FOLDERS_LEFT_HERE = ("checkpoint-*", "global_step*", "__pycache__", "runs", "wandb", ".*")


def files_to_push(folder: Path) -> dict[str, Path]:
    """Choose the files of a folder that go to the Hub.

    Args:
        folder: A saved model.

    Returns:
        Path in the repository to path here, sorted.

    Raises:
        ShrinkError: If the folder holds no weights, or only pickles.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _stays(path.relative_to(folder))]
    pickles = [path for path in paths if _is_pickle(path)]
    chosen = [path for path in paths if path not in pickles]
    if not any(path.suffix in WEIGHTS or _is_openvino(path) for path in chosen):
        if pickles:
            raise ShrinkError(
                f"`path_or_model` must hold safetensors or ONNX weights, but {folder} has only pickles, which can run "
                f"code when they are opened: {', '.join(path.name for path in pickles[:3])}. If you trust them, load "
                "the model and call save_pretrained()."
            )
        raise ShrinkError(
            f"`path_or_model` must hold weights, but {folder} has no *.safetensors or *.onnx file. "
            "Save the model there with save_pretrained()."
        )
    return {path.relative_to(folder).as_posix(): path for path in chosen}


def replaced_weights(new: Iterable[str], there: Iterable[str]) -> list[str]:
    """Weights in a repository that would be loaded in place of new ones: `model.safetensors` goes before shards.

    Args:
        new: Files that are pushed.
        there: Files in the repository.

    Returns:
        Those to delete in the same commit.
    """
    names = set(new)
    if not any(SAFETENSORS.fullmatch(name) for name in names):
        return []
    return [name for name in there if SAFETENSORS.fullmatch(name) and name not in names]


def _stays(path: Path) -> bool:
    folders, name = path.parts[:-1], path.name
    return (
        name.startswith(".")
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_HERE)
        or any(fnmatch.fnmatchcase(part, pattern) for part in folders for pattern in FOLDERS_LEFT_HERE)
    )


def _is_pickle(path: Path) -> bool:
    return path.suffix in PICKLED and not _is_openvino(path)


def _is_openvino(path: Path) -> bool:
    """OpenVINO's weights end in .bin too; the graph lies beside them under the same name."""
    return path.suffix == ".bin" and path.with_suffix(".xml").is_file()
