"""Hashes of what a model has learned, of the tokens that it knows, and of rows."""

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

READ = 10_000  # rows looked at in one go


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


def rows_fingerprint(rows: Dataset) -> str:
    """Hash the content of all rows, however it is stored: in memory or in a file, in one piece or in many.

    Args:
        rows: Columns of text, bytes, numbers, or lists or structs of these; images count by their file or path.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(",".join(rows.column_names).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(READ):
        for column in table.combine_chunks().columns:
            _add_values(digest, column.combine_chunks())
    return digest.hexdigest()


def _add_values(digest: Any, values: pa.Array) -> None:
    """Add values and their lengths; buffers of Arrow as they are hold whatever lies behind a slice."""
    digest.update(values.is_valid().to_numpy(zero_copy_only=False).tobytes())
    values = values.drop_null()
    kind = values.type
    if pa.types.is_struct(kind):
        for part in values.flatten():
            _add_values(digest, part)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(pc.list_value_length(values).cast("int64").to_numpy().tobytes())
        _add_values(digest, values.flatten())
    elif pa.types.is_primitive(kind):
        digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    else:
        for value in values.to_pylist():
            text = value.encode() if isinstance(value, str) else value
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text)
