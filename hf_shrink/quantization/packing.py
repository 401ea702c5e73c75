"""Models that transformers packs as it loads them, by one of the libraries that it knows."""

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.tasks import PROBLEM_TYPES
from hf_shrink.quantization.job import Job

PACKED_TASKS = (
    *PROBLEM_TYPES,
    "token_classification",
    "question_answering",
    "causal_lm",
    "seq2seq_lm",
    "masked_lm",
    "feature_extraction",
    "image_classification",
)
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
)


def dtype_of(name: str, argument: str) -> torch.dtype:
    """The dtype that a name stands for.

    Args:
        name: Key of `DTYPES`.
        argument: What the user knows it by.

    Returns:
        The dtype.

    Raises:
        ShrinkError: If there is none of that name.
    """
    if name not in DTYPES:
        raise ShrinkError(f"`{argument}` must be one of {list(DTYPES)}, got {name!r}. Write its name.")
    return DTYPES[name]


def pack(job: Job, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """Load a job's model with a quantization config of transformers, and save it before it answers anything.

    Args:
        job: Its folder gets what `from_pretrained` loads.
        config: Such as a `BitsAndBytesConfig`.
        dtype: Of what stays in float.

    Returns:
        The packed model.
    """
    job.step("save")
    source = job.folder.parent / "weights"
    with _without_bars():
        if not source.exists():  # jobs side by side share it
            job.model.save_pretrained(source)
        job.step("quantize")
        packed = type(job.model).from_pretrained(source, quantization_config=config, dtype=dtype).eval()
        packed.save_pretrained(job.folder)
    return packed


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Loading has a progress bar of its own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
