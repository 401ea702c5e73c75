"""Which method serves a model here, where the user leaves it open."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.calibration import needs_rows
from hf_shrink.quantization.predicted_size import predict_bytes
from hf_shrink.registry import Method

GENERATORS = ("causal_lm", "seq2seq_lm")
X86 = ("x86_64", "amd64")


@dataclass(frozen=True)
class Preference:
    """One method, and what speaks for it.

    Args:
        method: Name in `QUANTIZERS`.
        reason: Why it comes before those behind it.
        device: Where it runs well.
        generators: Whether it is preferred for models that generate; None for all.
        x86: Whether it is preferred on processors of this kind alone.
    """

    method: str
    reason: str
    device: str = "cpu"
    generators: bool | None = None
    x86: bool = False


PREFERENCES = (  # the first that is usable is taken
    Preference("bnb-nf4", "a GPU is here, and a generator's time goes into reading weights", "cuda", generators=True),
    Preference("bnb-int8", "a GPU is here, and 8 bits keep more than 4", "cuda"),
    Preference("openvino-int8", "8 bits of each weight are fast to read, and keep nearly all", generators=True),
    Preference(
        "openvino-int8-static",
        "rows are given, and it is the fastest on this processor's kind and keeps nearly all",
        generators=False,
        x86=True,
    ),
    Preference(
        "onnx-int8-block",
        "each block of a token has its own range, which a generator's outliers ask for",
        generators=True,
    ),
    Preference("onnx-int8", "it is fast on every CPU, keeps nearly all and needs no rows"),
    Preference("bnb-int8", "it needs nothing but PyTorch"),
)


def usable_methods(task: str | None = None, *, calibrated: bool = True) -> list[str]:
    """The methods that can be run here.

    Args:
        task: Name in `TASKS` that they must serve; None for any.
        calibrated: Whether there are rows for methods that cannot do without.

    Returns:
        Names in `QUANTIZERS`.
    """
    return [
        name
        for name, method in QUANTIZERS.items()
        if task in (None, *method.facts["tasks"])
        and (calibrated or not needs_rows(method))
        and not _missing(method.facts["libraries"])
    ]


def choose_method(task: str, *, calibrated: bool) -> Preference:
    """Choose by what is installed, by the processor, the task, and whether there are rows.

    Args:
        task: Name in `TASKS`.
        calibrated: Whether there are rows to calibrate with.

    Returns:
        The method with the reason.

    Raises:
        ShrinkError: If nothing that serves the task is installed.
    """
    usable = usable_methods(task, calibrated=calibrated)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_x86 = platform.machine().lower() in X86
    for preference in PREFERENCES:
        fits = preference.generators in (None, task in GENERATORS) and not (preference.x86 and not on_x86)
        if preference.method in usable and fits and preference.device in ("cpu", device):
            return preference
    serving = [name for name, method in QUANTIZERS.items() if task in method.facts["tasks"]]
    if not serving:
        raise ShrinkError(f"`task` must be one that a method serves, got {task!r}. No method of QUANTIZERS does.")
    extras = sorted({QUANTIZERS[name].facts["extra"] for name in serving} - {None})
    raise ShrinkError(
        f"`method` 'auto' must find one of {serving} installed, but none is. "
        f'Install one: pip install "hf_shrink[{",".join(extras[:1])}]".'
    )


def cheaper_methods(method: Method, model: PreTrainedModel, task: str) -> list[Method]:
    """The methods that are worth a try before another one, since they take fewer bits.

    Args:
        method: What would be taken.
        model: What is quantized.
        task: Name in `TASKS`.

    Returns:
        Methods of the same libraries that read no rows, the smallest first, and the method itself as the last.
    """
    numbers = method.facts["format"]
    usable = [QUANTIZERS[name] for name in usable_methods(task, calibrated=False)]
    same = [other for other in usable if other.facts["extra"] == method.facts["extra"]]
    cheaper = [other for other in same if other.facts["format"].bits < numbers.bits]
    return [*sorted(cheaper, key=lambda other: predict_bytes(model, other.facts["format"])), method]


def _missing(libraries: Sequence[str]) -> list[str]:
    return [library for library in libraries if find_spec(library.split(".")[0]) is None or find_spec(library) is None]
