"""Rows to calibrate with, and how a model comes to read them."""

import torch
from datasets import Dataset

from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from tests.models import tiny_tokenizer

LENGTHS = [9, 4, 6, 3, 5]


def sample(model, **labels):
    """Rows of unequal length, or pictures."""
    generator = torch.Generator().manual_seed(2)
    if model.config.model_type == "vit":
        return Dataset.from_dict({"pixel_values": torch.randn(5, 3, 16, 16, generator=generator).numpy(), **labels})
    ids = [torch.randint(5, 20, (length,), generator=generator).tolist() for length in LENGTHS]
    masks = [[1] * length for length in LENGTHS]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": masks, **labels})


def read(model, dataset, *, labelled=False, size=None, tokenizer=True, **options):
    processing_class = tiny_tokenizer() if tokenizer else None
    settings = RowOptions(processing_class=processing_class, **options)
    return read_rows(model, model, dataset, settings, labelled=labelled, size=size)
