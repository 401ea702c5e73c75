"""download: every byte is what the Hub says, or the call says which file is not."""

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForSequenceClassification

from hf_shrink.errors import ShrinkError
from hf_shrink.hub import download, push_to_hub
from tests.conftest import HUB

API = HfApi()


@pytest.fixture
def pushed(repo_id, folder):
    push_to_hub(folder, repo_id)
    return repo_id


def test_download(pushed, folder, model):
    place = download(pushed)
    assert place.name == API.model_info(pushed).sha
    assert (place / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    loaded = AutoModelForSequenceClassification.from_pretrained(place)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("path", "name"), [("^/_cdn", "model.safetensors"), ("resolve/.*/tokenizer.json", "tokenizer.json")]
)
def test_flipped_byte_is_caught_and_the_next_call_succeeds(pushed, folder, path, name):
    HUB.fault("corrupt", path=path, method="GET")
    with pytest.raises(ShrinkError, match=f"{name}.* came damaged.*download again"):
        download(pushed)
    place = download(pushed)
    assert (place / name).read_bytes() == (folder / name).read_bytes()


def test_blob_that_rots_in_the_cache_is_caught(pushed, folder):
    weights = (download(pushed) / "model.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ShrinkError, match="model.safetensors.* came damaged"):
        download(pushed)
    assert (download(pushed) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_dataset_and_revision(repo_id):
    API.create_repo(repo_id, repo_type="dataset")
    first = API.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo_id, repo_type="dataset")
    API.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=repo_id, repo_type="dataset")
    assert (download(repo_id, repo_type="dataset") / "a.txt").read_bytes() == b"2"
    assert (download(repo_id, repo_type="dataset", revision=first.oid) / "a.txt").read_bytes() == b"1"


def test_missing_repository(hub):
    with pytest.raises(ShrinkError, match="user/nowhere answers 404: .*Check its name and revision"):
        download("user/nowhere")


def test_no_network(hub, monkeypatch, waits):
    init = HfApi.__init__
    monkeypatch.setattr(HfApi, "__init__", lambda self, **kw: init(self, **{**kw, "endpoint": "http://127.0.0.1:9"}))
    with pytest.raises(ShrinkError, match="`repo_id` must be reached, got no answer for user/far-away"):
        download("user/far-away")
