"""The layers of a model that give its logits."""

from transformers import PreTrainedModel

from hf_shrink.architectures.known import architecture_of
from hf_shrink.errors import ShrinkError
from hf_shrink.versions import base_model


def head_names(model: PreTrainedModel) -> set[str]:
    """Find what gives the logits: quantized it costs the most, and on some CPUs its odd width cannot be computed.

    Args:
        model: Any model.

    Returns:
        Full names of modules.
    """
    modules = dict(model.named_modules())
    try:
        heads = {path for path in architecture_of(model).output_layers if path in modules}
    except ShrinkError:  # of an unknown family all beyond the base model is taken for heads
        inner = set(base_model(model).modules())
        heads = {name for name, module in modules.items() if module not in inner}
    return heads | {name for name, module in modules.items() if module is model.get_output_embeddings()}
