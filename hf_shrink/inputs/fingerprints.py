"""Hashes of what a model has learned and of the tokens that it reads."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin


def weights_fingerprint(model: nn.Module) -> str:
    """Hash all that a model has learned.

    Args:
        model: The teacher. Weights that accelerate keeps on disk count by name and shape only.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            if not tensor.is_meta:
                digest.update(tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(processing_class: Any) -> str | None:
    """Hash a vocabulary.

    Args:
        processing_class: Tokenizer, processor or image processor.

    Returns:
        32 hexadecimal digits; None where there is no tokenizer.
    """
    if isinstance(processing_class, ProcessorMixin):
        processing_class = vars(processing_class).get("tokenizer")  # some have none
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        return None
    vocabulary = json.dumps(sorted(processing_class.get_vocab().items()))
    return hashlib.blake2b(vocabulary.encode(), digest_size=16).hexdigest()
