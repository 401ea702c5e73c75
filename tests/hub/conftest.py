import re
import time

import pytest
from huggingface_hub import HfApi

from tests.models import tiny_bert_classifier, tiny_tokenizer


@pytest.fixture
def waits(monkeypatch):
    """What was slept, in seconds; nothing waits in truth."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def repo_id(hub, request):
    """A name that no other test uses; the repository is not there yet."""
    name = f"user/{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name)[:80].strip('-')}"
    yield name
    for kind in ("model", "dataset"):
        HfApi().delete_repo(name, repo_type=kind, missing_ok=True)


@pytest.fixture
def model():
    return tiny_bert_classifier()


@pytest.fixture
def folder(model, tmp_path):
    """A model's folder as training leaves it: what loads it, and what is nobody's business."""
    place = tmp_path / "tickets"
    model.save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    (place / "checkpoint-10").mkdir()
    names = ("training_args.bin", "stage.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "old.pkl")
    for name in (*names, "rng_state_0.pth", "checkpoint-10/model.safetensors", "trainer_state.json"):
        (place / name).write_bytes(b"not for the Hub")
    return place
