import pytest
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate keeps its mixed precision for the whole process: a bf16 test would make the next one bf16 too."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
