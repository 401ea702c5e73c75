"""The rows that a user gives to one quantization: to calibrate with, and to measure on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from transformers import PreTrainedModel

from hf_shrink.inputs.calibration_rows import RowOptions
from hf_shrink.quantization.calibration import Batch, CalibrationSet, calibration_batches
from hf_shrink.quantization.measured_drop import DropMeasure, measure_drop
from hf_shrink.registry import Method

CALIBRATION_BATCH = 8  # small batches hold little padding
SENSITIVITY_ROWS = 128


@dataclass
class GivenRows:
    """Rows of one quantization, read when they are needed.

    Args:
        model: The float model.
        source: Where it is from: itself, a folder or a Hub id.
        options: How rows are read; the task is known.
        calibration_dataset: Rows for calibrated methods, or None.
        calibration_size: Rows to draw of it.
        evaluation_dataset: Rows to measure on, or None.
    """

    model: PreTrainedModel
    source: Any
    options: RowOptions
    calibration_dataset: Any
    calibration_size: int
    evaluation_dataset: Any

    def calibration(self, method: Method) -> CalibrationSet:
        """Batches for a method.

        Args:
            method: How the model is quantized; a user's own function gets rows where there are some.

        Returns:
            The drawn rows; none for a method that does not read any, whose artifact does not depend on them.
        """
        reads = method.facts.get("calibrated", True) and self.calibration_dataset is not None
        return self._drawn if reads else CalibrationSet((), {})

    def measure(self, metric: Any) -> DropMeasure | None:
        """Prepare the measure; the float model answers.

        Args:
            metric: As for `measure_drop`; None is "agreement".

        Returns:
            The measure; None without rows.
        """
        if self.evaluation_dataset is None:
            return None
        chosen = "agreement" if metric is None else metric
        return measure_drop(
            self.model, self.source, self.evaluation_dataset, chosen, str(self.options.task), self.options
        )

    def sensitive(self) -> Sequence[Batch]:
        """Batches to find sensitive modules on: of the rows to calibrate with, or else of those to measure on.

        Returns:
            Up to 128 rows.
        """
        if self.calibration_dataset is not None:
            return list(islice(self._drawn.batches, SENSITIVITY_ROWS // CALIBRATION_BATCH))
        return self._draw(self.evaluation_dataset, SENSITIVITY_ROWS).batches

    @cached_property
    def _drawn(self) -> CalibrationSet:
        return self._draw(self.calibration_dataset, self.calibration_size)

    def _draw(self, dataset: Any, size: int) -> CalibrationSet:
        options = replace(self.options, batch_size=CALIBRATION_BATCH)
        return calibration_batches(self.model, self.source, dataset, options, size=size)
