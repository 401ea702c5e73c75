"""Which modules take quantization worst: each quantized alone, and the answers held against the float model's."""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.modes import evaluation_mode
from hf_shrink.inputs.calibration_rows import RowOptions
from hf_shrink.inputs.datasets import dataset_name
from hf_shrink.inputs.models import load_model
from hf_shrink.inputs.tasks import find_task
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.calibration import CalibrationSet, calibration_batches
from hf_shrink.quantization.divergence import NO_DECISIONS, PER_TOKEN, Divergence, answers_of, diverge
from hf_shrink.quantization.float_graph import to_float
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.simulation import Simulation

SHOWN = 40  # bars of the picture; the others are the harmless ones


@dataclass(frozen=True)
class SensitivityMap:
    """How far the answers move if one module alone is quantized, simulated in PyTorch.

    Args:
        method: Name in `QUANTIZERS`, whose numbers were simulated.
        task: Name in `TASKS`.
        unit: Of the divergences, in words.
        divergences: One number a module, the most sensitive first.
        dataset: What the report calls it.
        rows: Rows that it is the mean over.
        fingerprint: SHA-256 of these rows as the model read them.
    """

    method: str
    task: str
    unit: str
    divergences: Mapping[str, float]
    dataset: str
    rows: int
    fingerprint: str

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules, the most sensitive first: the order in which they are worth their bytes in float."""
        return tuple(self.divergences)

    def to_json(self, path: str | Path) -> Path:
        """Save the map.

        Args:
            path: The file.

        Returns:
            The path written.
        """
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def from_json(cls, path: str | Path) -> "SensitivityMap":
        """Read a saved map.

        Args:
            path: The file.

        Returns:
            The map.

        Raises:
            ShrinkError: If the file holds none.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ShrinkError(
                f"`path` must be a file that SensitivityMap.to_json() wrote, got {path} ({error}). Make one with "
                "quantization_sensitivity()."
            ) from error

    def to_markdown(self) -> str:
        """The map as a table in Markdown.

        Returns:
            One row a module, and the conditions below.
        """
        lines = ["| Module | Divergence |", "| --- | ---: |"]
        lines += [f"| `{name}` | {value:.3g} |" for name, value in self.divergences.items()]
        return "\n".join([*lines, "", self._conditions()]) + "\n"

    def plot(self, path: str | Path) -> Path:
        """Draw the most sensitive modules as bars.

        Args:
            path: The picture; its ending chooses the format (.png, .svg, .pdf).

        Returns:
            The path written.
        """
        from matplotlib.figure import Figure

        shown = dict(list(self.divergences.items())[:SHOWN])
        height = max(2.4, 1.3 + 0.2 * len(shown))
        figure = Figure(figsize=(7.2, height), dpi=160, layout="constrained")  # not pyplot: its state would leak
        axes = figure.add_subplot()
        axes.barh(range(len(shown)), list(shown.values()), color="#d96c0f")
        axes.set_yticks(range(len(shown)), list(shown), fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel(f"{self.unit[0].upper()}{self.unit[1:]}")
        axes.set_title(f"One module in {self.method}, simulated", fontsize=11, loc="left")
        axes.set_title(f"{self.dataset}, {self.rows:,} rows", fontsize=8, loc="right", color="#5c6675")
        axes.grid(axis="x", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)
        return Path(path)

    def _conditions(self) -> str:
        return (
            f"Mean over {self.rows:,} rows of {self.dataset}, in {self.unit}, if the module alone is quantized: "
            f"simulated in PyTorch with the number format of {self.method}."
        )


def quantization_sensitivity(
    model: Any,
    method: str,
    dataset: Any,
    *,
    processing_class: Any = None,
    task: str | None = None,
    calibration_size: int = 128,
    split: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 0,
) -> SensitivityMap:
    """Find which modules take quantization worst: each is quantized alone, and put back.

    The numbers are rounded in PyTorch as the method stores them, which takes one pass over the rows for each module,
    and needs none of the method's libraries. No labels are read.

    Args:
        model: A float model, a folder or a Hub id; an instance stays as it is.
        method: Name in `QUANTIZERS`.
        dataset: Rows: a `Dataset`, or a path or Hub id.
        processing_class: What prepares raw rows; loaded from where the model was if None and needed.
        task: Name in `TASKS`; found from the model if None.
        calibration_size: Rows to draw.
        split: Of the dataset, where it has several.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column, whose classes keep their shares among the rows; found where it is None.
        data_collator: Makes a padded batch; None takes the one of the task.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        seed: Of the choice of rows.

    Returns:
        The map.

    Raises:
        ShrinkError: If the method is unknown, or the model is no float model.
    """
    numbers = QUANTIZERS[method].facts["format"]
    loaded = load_model(model, task=task)
    if not isinstance(loaded, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a float transformers model, got {type(loaded).__name__}. Give what it was made from."
        )
    options = RowOptions(
        split, task, processing_class, text_column, label_column, data_collator, batch_size, max_length, seed
    )
    rows = calibration_batches(loaded, model, dataset, options, size=calibration_size)
    float_model = to_float(copy.deepcopy(loaded) if loaded is model else loaded)
    found = measure_sensitivity(float_model, numbers, rows.batches, find_task(loaded, task))
    return make_map(found, method, find_task(loaded, task), rows, dataset_name(dataset))


def read_map(sensitivity: Any, model: nn.Module) -> SensitivityMap | None:
    """Take a map that was made before, or refuse it.

    Args:
        sensitivity: A map, its file, or None.
        model: What it should be of.

    Returns:
        The map, or None.

    Raises:
        ShrinkError: If it is no map, or of another model.
    """
    if sensitivity is None:
        return None
    found = SensitivityMap.from_json(sensitivity) if isinstance(sensitivity, str | Path) else sensitivity
    if not isinstance(found, SensitivityMap):
        raise ShrinkError(
            f"`sensitivity` must be a SensitivityMap or its file, got {type(found).__name__}. Make one with "
            "quantization_sensitivity()."
        )
    if unknown := sorted(set(found.modules) - {name for name, _ in model.named_modules()}):
        raise ShrinkError(
            f"`sensitivity` must be a map of this model, but it names {unknown[0]!r}, which {type(model).__name__} "
            "lacks. Make one with quantization_sensitivity()."
        )
    return found


def make_map(
    divergences: Mapping[str, float], method: str, task: str, rows: CalibrationSet, dataset: str
) -> SensitivityMap:
    """Put a map together.

    Args:
        divergences: What `measure_sensitivity` found.
        method: Name in `QUANTIZERS`.
        task: Name in `TASKS`.
        rows: What it was measured on.
        dataset: Its name.

    Returns:
        The map.
    """
    answer = "token" if task in PER_TOKEN else "row"
    unit = "mean squared difference" if task in NO_DECISIONS else f"KL divergence (nats a {answer})"
    return SensitivityMap(method, task, unit, divergences, dataset, rows.record["rows"], rows.record["fingerprint"])


def measure_sensitivity(
    model: nn.Module, numbers: Format, batches: Sequence[Mapping[str, Tensor]], task: str
) -> dict[str, float]:
    """Quantize each module alone, and hold the answers against the float model's.

    Args:
        model: A float model; it is put back to the last bit.
        numbers: How the method stores numbers.
        batches: Inputs by name, without labels.
        task: Name in `TASKS`.

    Returns:
        Mean divergence by module, the largest first.
    """
    simulation = Simulation(model, numbers, batches)
    sums = dict.fromkeys(simulation.modules, Divergence())
    total = len(batches) * len(sums)
    with evaluation_mode([model]), tqdm(total=total, desc="Quantizing each alone", leave=False) as bar:
        for batch in batches:  # the outer loop, since a language model's answers to all rows may not fit into memory
            expected = answers_of(model, batch, task)
            for name in sums:
                with simulation.quantized([name]):
                    sums[name] += diverge(expected, answers_of(model, batch, task), batch, task)
                bar.update()
    means = {name: found.mean for name, found in sums.items()}
    return dict(sorted(means.items(), key=lambda item: -math.inf if math.isnan(item[1]) else -item[1]))
