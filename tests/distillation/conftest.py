import os

import pytest
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate keeps its mixed precision for the whole process: a bf16 test would make the next one bf16 too."""
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # set by TrainingArguments of transformers 4
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
