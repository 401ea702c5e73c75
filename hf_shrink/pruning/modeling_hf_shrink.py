"""Models of transformers with some matrices smaller than the config says, each by itself.

Written by hf_shrink beside the weights, and needs nothing but torch and transformers. Load the folder with
`trust_remote_code=True`. `hf_shrink_shapes` in config.json holds, by module, lists (the shape of a parameter) and
numbers (what the module keeps of its own size).
"""

import shutil
from pathlib import Path
from typing import Any

import transformers
from torch import nn

CLASSES: dict[str, type] = {}


def __getattr__(name: str) -> type:
    """The class of transformers that bears the name, with its matrices cut to size."""
    stock = getattr(transformers, name, None)
    if not (isinstance(stock, type) and issubclass(stock, transformers.PreTrainedModel)):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    if name not in CLASSES:
        CLASSES[name] = _subclass(stock)
    return CLASSES[name]


def _subclass(stock: Any) -> type:
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)
        resize(self, getattr(config, "hf_shrink_shapes", None) or {})

    def save_pretrained(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        stock.save_pretrained(self, save_directory, *args, **kwargs)
        shutil.copyfile(__file__, Path(save_directory) / Path(__file__).name)  # transformers 4 leaves it behind

    members = {
        "__init__": __init__,
        "save_pretrained": save_pretrained,
        "is_custom_code": classmethod(lambda cls: False),  # transformers 5 would not rename weights of old checkpoints
        "__module__": __name__,
        "__doc__": stock.__doc__,
    }
    return type(stock.__name__, (stock,), members)


def resize(model: Any, shapes: dict[str, dict[str, Any]]) -> None:
    """Cut parameters to size, and let the modules' numbers follow.

    Args:
        model: As its config says.
        shapes: By the name of a module in the model beneath the head. Modules that the model lacks, such as a decoder
            where only the encoder is loaded, are passed over.
    """
    modules = dict(model.named_modules())
    # The model beneath the head: this one itself, or a part whose name differs between versions.
    beneath = ("", f"{model.base_model_prefix}.", "model.")
    prefix = max(beneath, key=lambda start: sum(start + name in modules for name in shapes))
    for name, sizes in shapes.items():
        module = modules.get(prefix + name)
        for key, size in sizes.items() if module is not None else ():
            if isinstance(size, list):
                whole = getattr(module, key)
                part = whole.detach()[tuple(slice(length) for length in size)].clone()
                setattr(module, key, nn.Parameter(part, requires_grad=whole.requires_grad))
            else:
                setattr(module, key, size)
