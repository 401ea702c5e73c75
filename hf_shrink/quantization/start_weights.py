"""What a model was before training, to hold what training made of it against."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hf_shrink.errors import ShrinkError

FILE = "quantization_start.safetensors"


class StartWeights:
    """Copies of all that training changes, in CPU memory.

    Args:
        tensors: By their names in the model.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    @classmethod
    def of(cls, model: nn.Module) -> "StartWeights":
        """Copy those of a model.

        Args:
            model: Any.

        Returns:
            The copies.
        """
        return cls({name: tensor.detach().to("cpu", copy=True) for name, tensor in _trained(model).items()})

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Give a model these weights; what training has set to zero (pruned) is zero in them too.

        Args:
            model: The one that they were copied from.
        """
        for name, tensor in _trained(model).items():
            start = self.tensors[name].to(tensor.device)
            if tensor.is_floating_point():
                start = start.masked_fill(tensor == 0, 0)
            tensor.copy_(start)

    @contextmanager
    def instead(self, model: nn.Module) -> Iterator[None]:
        """Give a model these weights for a while.

        Args:
            model: The one that they were copied from.

        Yields:
            Nothing.
        """
        trained = StartWeights.of(model)
        self.put_into(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _trained(model).items():
                    tensor.copy_(trained.tensors[name])

    def save(self, folder: Path, model: nn.Module, about: Mapping[str, str]) -> None:
        """Write them into a checkpoint.

        Args:
            folder: Of the checkpoint.
            model: As it is in this checkpoint.
            about: What the run that takes them up must say of itself too.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, folder / FILE, metadata={**about, "weights": _digest(model)})

    @classmethod
    def load(cls, folders: list[Path], model: nn.Module, about: Mapping[str, str]) -> "StartWeights":
        """Read them from the checkpoint that a model was loaded from.

        Args:
            folders: Where to look.
            model: As it was loaded.
            about: What `save` was told.

        Returns:
            The first that were saved beside these very weights.

        Raises:
            ShrinkError: If none were, or by a run with other settings.
        """
        digest = _digest(model)
        for path in [folder / FILE for folder in folders]:
            if not path.is_file():
                continue
            with safe_open(path, framework="pt") as file:
                found = dict(file.metadata())
                if found.pop("weights") != digest:
                    continue
                if found != dict(about):
                    raise ShrinkError(
                        "`resume_from_checkpoint` must hold a run of the same callback, but its settings were "
                        f"{found}, and are {dict(about)}. Resume with those, or train from the model in it."
                    )
                return cls({name: file.get_tensor(name) for name in file.keys()})
        raise ShrinkError(
            f"`resume_from_checkpoint` must hold the {FILE} of its weights, and none was found in "
            f"{' or '.join(map(str, folders))}. Where the checkpoint lies elsewhere, say so: "
            "QuantizationAwareCallback(…, checkpoint=folder). To begin with its model, load it and train anew."
        )


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: it moves parameters, and some modules count in buffers."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {**parameters, **dict(model.named_buffers())}


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(name.encode())
        found.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
