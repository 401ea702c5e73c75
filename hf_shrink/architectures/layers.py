"""Where the layers of a model at hand are."""

from torch import nn

from hf_shrink.architectures.known import architecture_of
from hf_shrink.versions import base_model


def find_layers(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of layers that a model has.

    Args:
        model: A transformers model of a known family, with any head.

    Returns:
        `"encoder"` and `"decoder"`, as far as the model has them, encoder first; the lists themselves, no copies.
    """
    modules = dict(base_model(model).named_modules())
    found = {stack.name: modules.get(stack.path) for stack in architecture_of(model).stacks}
    return {name: layers for name, layers in found.items() if isinstance(layers, nn.ModuleList)}
