"""What a quantizer is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Job:
    """One model to be quantized.

    Args:
        model: The float model in fp32, on the CPU, in evaluation mode, as `to_float` gives it; it must stay as it is.
        task: Name in `TASKS`.
        folder: Where the weights go; what is left in the folder's parent is thrown away.
        step: Called with the name of each stage as it begins.
        ignore: Full names of the modules that stay in float.
        calibration: Padded batches without labels; a method that needs them gets at least one.
    """

    model: PreTrainedModel
    task: str
    folder: Path
    step: Callable[[str], None]
    ignore: tuple[str, ...] = ()
    calibration: tuple[Mapping[str, Tensor], ...] = ()


@dataclass(frozen=True)
class Made:
    """What came of a job.

    Args:
        record: What `quantization.json` shall say of it, as JSON values; "options" at least.
        model: The quantized model as it was in memory before it was saved, where there is one: what a fresh process
            loads is held to its answers.
    """

    record: Mapping[str, Any]
    model: Any = None
