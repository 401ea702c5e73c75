"""A model with one module that takes quantization badly, as large models have some."""

import torch
from transformers import PreTrainedModel


def with_outliers(model: PreTrainedModel, name: str, size: float = 300.0) -> PreTrainedModel:
    """Give the first map of a BERT's feed-forward block one large weight in each row, which reads next to nothing.

    The scale of each row then fits that weight alone; what the model answers hardly changes.
    """
    module = model.get_submodule(name)
    norm = model.get_submodule(name.replace("intermediate.dense", "attention.output.LayerNorm"))
    with torch.no_grad():
        norm.weight[0] = 1e-4
        norm.bias[0] = 0.0
        module.weight[:, 0] = size * module.weight.std()
    return model
