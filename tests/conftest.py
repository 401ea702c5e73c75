"""Set-up for all tests: one loopback Hub a pytest process, and an environment that points every client at it."""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.hub.server import HubServer

if "huggingface_hub" in sys.modules:
    raise RuntimeError("huggingface_hub was imported before tests/conftest.py could set HF_ENDPOINT.")

WORK = Path(tempfile.mkdtemp(prefix="hf-shrink-tests-"))
HUB = HubServer(WORK / "hub", part_size=8 * 2**20).__enter__()
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
atexit.register(HUB.__exit__)

for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "WANDB_"))]:
    del os.environ[name]  # a developer's own token, cache or offline switch must not reach the tests
os.environ.update(HUB.env(WORK / "home"))
os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", WANDB_MODE="disabled", CUDA_VISIBLE_DEVICES="")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class DeprecationIsAnError(logging.Handler):
    """transformers announces half of its deprecations through its logger, out of reach of warning filters."""

    def emit(self, record):
        if "deprecat" in record.getMessage().lower():
            raise DeprecationWarning(record.getMessage())


def pytest_configure(config):
    logging.getLogger("transformers").addHandler(DeprecationIsAnError(logging.WARNING))
    for module in ("transformers", "hf_shrink", "tests"):  # the last two: where stacklevel blames the caller
        for category in ("FutureWarning", "DeprecationWarning"):
            config.addinivalue_line("filterwarnings", f"error::{category}:{module}")
    config.addinivalue_line("filterwarnings", "ignore:.is_gradient_checkpointing:FutureWarning")  # in peft 0.21


@pytest.fixture
def hub():
    """The loopback Hub; its faults are cleared before and after."""
    HUB.clear_faults()
    HUB.requests.clear()
    yield HUB
    HUB.clear_faults()


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate keeps its mixed precision for the whole process: a bf16 test would make the next one bf16 too."""
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # set by TrainingArguments of transformers 4
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
