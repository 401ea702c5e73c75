"""The real Hugging Face clients against the loopback Hub, and what those clients do not do by themselves."""

import hashlib
import inspect
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.conftest import HUB

try:  # 0.36 raises requests' errors (subclasses of OSError), 1.x httpx', 2.x httpx2's
    from httpx2 import TransportError
except ImportError:
    from httpx import TransportError

FAILED = (OSError, RuntimeError, TransportError)  # what an upload that the network broke ends in, by version
API = HfApi()
V1 = int(huggingface_hub.__version__.split(".")[0]) >= 1
OWN_VALIDATOR = "constants.ENDPOINT" in inspect.getsource(huggingface_hub.RepoCard.validate)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.02)))


@pytest.fixture
def repo(hub, request):
    name = f"user/{request.node.name.replace('[', '-').replace(']', '')[:60]}"
    API.create_repo(name, exist_ok=True)
    yield name
    API.delete_repo(name, missing_ok=True)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seen(method: str, part: str) -> list[dict]:
    return [r for r in HUB.requests if r["method"] == method and part in r["path"]]


def raw(method: str, path: str, body=b"", token="hf_write", **headers):
    """(status, headers, body) of a request no client would send."""
    url = path if path.startswith("http") else HUB.url + path
    request = urllib.request.Request(url, body or None, method=method, headers=headers)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


# ------------------------------------------------------------------ tokens, repositories
def test_whoami_and_tokens(hub):
    me = API.whoami()
    assert me["name"] == "user"
    assert [o["name"] for o in me["orgs"]] == ["acme"]
    with pytest.raises(FAILED) as error:  # requests.HTTPError in 0.36, HfHubHTTPError since 1.0
        HfApi(token="hf_wrong").whoami()
    assert error.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(token="hf_read").create_repo("user/read-only")
    assert error.value.response.status_code == 403
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(token=False).create_repo("user/anonymous")
    assert error.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError) as error:
        API.create_repo("other/not-mine")
    assert error.value.response.status_code == 403


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_create_delete_repo(hub, kind):
    sdk = {"space_sdk": "gradio"} if kind == "space" else {}
    url = API.create_repo("acme/thing", repo_type=kind, **sdk)
    assert url.repo_id == "acme/thing"
    assert url.repo_type == kind
    assert API.create_repo("acme/thing", repo_type=kind, exist_ok=True, **sdk) == url
    with pytest.raises(HfHubHTTPError) as error:
        API.create_repo("acme/thing", repo_type=kind, **sdk)
    assert error.value.response.status_code == 409
    assert API.list_repo_files("acme/thing", repo_type=kind) == [".gitattributes"]
    assert API.repo_exists("acme/thing", repo_type=kind)
    if kind == "space":
        API.upload_file(
            path_or_fileobj=b"---\nsdk: gradio\n---\n", path_in_repo="README.md", repo_id="acme/thing", repo_type=kind
        )
        assert API.space_info("acme/thing").sdk == "gradio"
    API.delete_repo("acme/thing", repo_type=kind)
    assert not API.repo_exists("acme/thing", repo_type=kind)


def test_private_repo_is_hidden(hub, tmp_path):
    API.create_repo("user/secret", private=True, exist_ok=True)
    API.upload_file(path_or_fileobj=os.urandom(2000), path_in_repo="w.safetensors", repo_id="user/secret")
    assert API.model_info("user/secret").private
    for token in ("hf_other", False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("user/secret")
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("user/secret", "w.safetensors", token=token, cache_dir=tmp_path)
    assert "user/secret" not in [m.id for m in HfApi(token="hf_other").list_models()]
    assert len(Path(hf_hub_download("user/secret", "w.safetensors")).read_bytes()) == 2000
    # the storage address of an LFS object is useless without its signature
    status, headers, _ = raw("HEAD", "/user/secret/resolve/main/nope")
    assert status == 404
    assert headers["X-Error-Code"] == "EntryNotFound"
    oid = API.get_paths_info("user/secret", ["w.safetensors"])[0].lfs.sha256
    assert raw("GET", f"/_cdn/models/user/secret/{oid}?sig=00")[0] == 403
    API.delete_repo("user/secret")


def test_not_found_codes(hub, repo):
    with pytest.raises(RepositoryNotFoundError):
        API.model_info("user/nothing-here")
    with pytest.raises(RevisionNotFoundError):
        API.model_info(repo, revision="no-such-branch")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo, "no-such-file")


# ------------------------------------------------------------------ folders and commits
def make_folder(path: Path) -> dict[str, bytes]:
    files = {
        "config.json": b'{"a": 1}',
        "sub dir/é.txt": "naïve".encode(),
        "sub dir/deep/x.py": b"x = 1\n",
        "weights.safetensors": os.urandom(300_000),
        "empty.txt": b"",
        "data.dat": b"\0\1" * 700,
    }
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return files


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_upload_folder_and_snapshot(hub, kind, tmp_path):
    files = make_folder(tmp_path / "in")
    API.create_repo("user/folder", repo_type=kind, exist_ok=True)
    done = API.upload_folder(folder_path=tmp_path / "in", repo_id="user/folder", repo_type=kind, commit_message="one")
    local = Path(snapshot_download("user/folder", repo_type=kind, cache_dir=tmp_path / "cache"))
    assert {
        str(p.relative_to(local)): p.read_bytes()
        for p in local.rglob("*")
        if p.is_file() and p.name != ".gitattributes"
    } == files
    assert local.name == done.oid == API.repo_info("user/folder", repo_type=kind).sha
    info = {f.path: f for f in API.list_repo_tree("user/folder", repo_type=kind, recursive=True, expand=True)}
    assert info["weights.safetensors"].lfs.sha256 == sha(files["weights.safetensors"])
    assert info["data.dat"].lfs
    assert not info["config.json"].lfs
    assert info["sub dir/deep"].last_commit.title == "one"
    # pushing the same again makes no commit
    commits = len(API.list_repo_commits("user/folder", repo_type=kind))
    API.upload_folder(folder_path=tmp_path / "in", repo_id="user/folder", repo_type=kind)
    assert len(API.list_repo_commits("user/folder", repo_type=kind)) == commits == 2
    API.upload_folder(
        folder_path=tmp_path / "in",
        repo_id="user/folder",
        repo_type=kind,
        path_in_repo="b",
        delete_patterns="*",
        allow_patterns="*.json",
    )
    assert "b/config.json" in API.list_repo_files("user/folder", repo_type=kind)
    API.delete_folder("b", "user/folder", repo_type=kind)
    API.delete_file("empty.txt", "user/folder", repo_type=kind)
    assert len(API.list_repo_files("user/folder", repo_type=kind)) == len(files)
    API.delete_repo("user/folder", repo_type=kind)


def test_tree_pages(hub, repo):
    hub.page_size = 3
    try:
        adds = [CommitOperationAdd(f"f{i}.txt", f"{i}".encode()) for i in range(10)]
        API.create_commit(repo, adds, commit_message="ten")
        assert len(list(API.list_repo_tree(repo))) == 11
    finally:
        hub.page_size = 1000


def test_parent_commit_conflict(hub, repo):
    first = API.model_info(repo).sha
    add = lambda text: [CommitOperationAdd("a.txt", text)]  # noqa: E731
    API.create_commit(repo, add(b"1"), commit_message="1", parent_commit=first)
    with pytest.raises(HfHubHTTPError) as error:
        API.create_commit(repo, add(b"2"), commit_message="2", parent_commit=first)
    assert error.value.response.status_code == 412
    assert Path(hf_hub_download(repo, "a.txt")).read_bytes() == b"1"


def test_branches_and_tags(hub, repo):
    API.create_branch(repo, branch="4bit")
    API.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo, revision="4bit")
    API.create_tag(repo, tag="v1.0", revision="4bit")
    assert "x.txt" not in API.list_repo_files(repo)
    assert "x.txt" in API.list_repo_files(repo, revision="v1.0")
    refs = API.list_repo_refs(repo)
    assert {b.name for b in refs.branches} == {"main", "4bit"}
    assert [t.ref for t in refs.tags] == ["refs/tags/v1.0"]
    API.delete_tag(repo, tag="v1.0")
    API.delete_branch(repo, branch="4bit")
    with pytest.raises(RevisionNotFoundError):
        API.list_repo_files(repo, revision="4bit")


def test_pull_request(hub, repo):
    other = HfApi(token="hf_other")  # no write access: a pull request is the only way in
    with pytest.raises(HfHubHTTPError) as error:
        other.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo)
    assert error.value.response.status_code == 403
    done = other.create_commit(repo, [CommitOperationAdd("x.bin", b"\0x")], commit_message="fix", create_pr=True)
    assert done.pr_num == 1
    assert "x.bin" not in API.list_repo_files(repo)
    assert Path(hf_hub_download(repo, "x.bin", revision="refs/pr/1")).read_bytes() == b"\0x"
    assert [d.title for d in API.get_repo_discussions(repo)] == ["fix"]
    API.merge_pull_request(repo, 1)
    assert "x.bin" in API.list_repo_files(repo)
    assert API.get_discussion_details(repo, 1).status == "merged"


def test_bad_paths_are_refused(hub, repo):
    for path in ("../up.txt", "a/../../up.txt", "/etc/x", ".git/config", "a//b", ""):
        lines = [
            {"key": "header", "value": {"summary": "s"}},
            {"key": "file", "value": {"path": path, "content": "eA==", "encoding": "base64"}},
        ]
        body = "\n".join(map(json.dumps, lines)).encode()
        assert raw("POST", f"/api/models/{repo}/commit/main", body)[0] == 400, path
    assert API.list_repo_files(repo) == [".gitattributes"]


# ------------------------------------------------------------------ large files
def test_large_file(hub, repo, tmp_path):
    data = os.urandom(60 * 2**20)
    (tmp_path / "model.safetensors").write_bytes(data)
    API.upload_file(path_or_fileobj=tmp_path / "model.safetensors", path_in_repo="big.safetensors", repo_id=repo)
    assert len(seen("PUT", "/_lfs/")) == 8
    assert len(seen("POST", "/verify")) == 1
    assert max(r["bytes"] for r in HUB.requests) <= 8 * 2**20
    local = hf_hub_download(repo, "big.safetensors", cache_dir=tmp_path / "cache")
    assert sha(Path(local).read_bytes()) == sha(data)
    HUB.requests.clear()
    API.upload_file(path_or_fileobj=data, path_in_repo="again.safetensors", repo_id=repo)  # known already
    assert not seen("PUT", "/_lfs/")
    url = raw("HEAD", f"/{repo}/resolve/main/big.safetensors")[1]  # urllib follows the redirect
    assert url["Content-Length"] == str(len(data))
    status, headers, body = raw("GET", f"/{repo}/resolve/main/big.safetensors", Range="bytes=10-19")
    assert (status, body, headers["Content-Range"]) == (206, data[10:20], f"bytes 10-19/{len(data)}")


def test_upload_with_wrong_hash_is_refused(hub, repo):
    oid = sha(b"right")
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": 5}]}).encode()
    batch = json.loads(raw("POST", f"/{repo}.git/info/lfs/objects/batch", body)[2])
    action = batch["objects"][0]["actions"]
    assert raw("PUT", action["upload"]["href"], b"wrong", token=None)[0] == 400
    verify = json.dumps({"oid": oid, "size": 5}).encode()
    assert raw("POST", action["verify"]["href"], verify)[0] == 404
    assert raw("PUT", action["upload"]["href"] + "0", b"right", token=None)[0] == 403
    assert raw("PUT", action["upload"]["href"], b"right", token=None)[0] == 200
    assert raw("POST", action["verify"]["href"], verify)[0] == 200


# ------------------------------------------------------------------ cards
CARD = """---
library_name: transformers
license: apache-2.0
base_model: user/teacher
base_model_relation: quantized
pipeline_tag: text-classification
tags: [hf-shrink, 8-bit]
datasets: [user/distilled]
model-index:
- name: small
  results:
  - task: {type: text-classification}
    dataset: {name: d, type: user/distilled}
    metrics: [{type: accuracy, value: 0.9}]
---
# Small
"""


@pytest.fixture
def validator(monkeypatch):
    """Before 2.x RepoCard.validate (so ModelCard.push_to_hub) asks huggingface.co whatever HF_ENDPOINT says."""
    if not OWN_VALIDATOR:
        monkeypatch.setattr(
            huggingface_hub.RepoCard,
            "validate",
            lambda self, repo_type=None: API._validate_yaml(str(self), repo_type=repo_type or self.repo_type),
        )


def test_model_card(hub, repo, validator):
    card = ModelCard(CARD)
    card.validate()
    card.push_to_hub(repo)
    info = API.model_info(repo)
    assert info.pipeline_tag == "text-classification"
    assert info.library_name == "transformers"
    assert {
        "base_model:user/teacher",
        "base_model:quantized:user/teacher",
        "license:apache-2.0",
        "hf-shrink",
        "dataset:user/distilled",
    } <= set(info.tags)
    assert info.card_data.eval_results[0].metric_value == 0.9
    assert ModelCard.load(repo).data.base_model == "user/teacher"
    with pytest.raises(ValueError, match="base_model_relation"):
        ModelCard(CARD.replace("quantized", "shrunk")).validate()
    with pytest.raises(ValueError, match="base_model"):
        ModelCard(CARD.replace("user/teacher", "not a repo id!")).push_to_hub(repo)
    with pytest.raises(ValueError, match="YAML"):
        API.upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id=repo)
    bad = {"path": "README.md", "content": "LS0tCmE6IFsKLS0tCg==", "encoding": "base64"}  # and the server itself
    lines = [{"key": "header", "value": {"summary": "s"}}, {"key": "file", "value": bad}]
    assert raw("POST", f"/api/models/{repo}/commit/main", "\n".join(map(json.dumps, lines)).encode())[0] == 400
    assert [m.id for m in API.list_models(filter="hf-shrink")] == [repo]


# ------------------------------------------------------------------ transformers
def tiny():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=99,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            num_labels=3,
        )
    )


def tokenizer(folder: Path):
    from transformers import BertTokenizerFast

    folder.mkdir(exist_ok=True, parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (folder / "vocab.txt").write_text("\n".join(words))
    try:
        return BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    except TypeError:
        return BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})


def test_model_and_tokenizer(hub, repo, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tok = tiny(), tokenizer(tmp_path / "tok")
    model.push_to_hub(repo)
    tok.push_to_hub(repo)
    assert "model.safetensors" in API.list_repo_files(repo)
    back = AutoModelForSequenceClassification.from_pretrained(repo)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))
    assert AutoTokenizer.from_pretrained(repo)("good film").input_ids == tok("good film").input_ids
    assert API.model_info(repo).safetensors.total == sum(p.numel() for p in model.parameters())
    assert API.get_safetensors_metadata(repo).parameter_count["F32"] == sum(p.numel() for p in model.parameters())


def test_sharded_private_push(hub, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = tiny()
    model.push_to_hub("acme/sharded", private=True, max_shard_size="10KB", commit_message="in shards")
    files = API.list_repo_files("acme/sharded")
    assert "model.safetensors.index.json" in files
    assert sum(f.endswith(".safetensors") for f in files) > 1
    assert API.model_info("acme/sharded").private
    assert API.list_repo_commits("acme/sharded")[0].title == "in shards"
    AutoModelForSequenceClassification.from_pretrained("acme/sharded")
    API.delete_repo("acme/sharded")


def test_trainer_push(hub, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    tok = tokenizer(tmp_path / "tok")
    rows = [{"input_ids": torch.tensor([2, 5 + i % 3, 3]), "labels": torch.tensor(i % 3)} for i in range(8)]
    args = TrainingArguments(
        str(tmp_path / "run"),
        push_to_hub=True,
        hub_model_id="user/trained",
        max_steps=4,
        save_steps=2,
        hub_strategy="all_checkpoints",
        report_to=[],
        use_cpu=True,
    )
    trainer = Trainer(tiny(), args, train_dataset=rows, eval_dataset=rows, processing_class=tok)
    trainer.train()
    trainer.push_to_hub("done", tags=["hf-shrink"], model_name="trained")
    files = API.list_repo_files("user/trained")
    assert {"model.safetensors", "README.md", "training_args.bin", "checkpoint-2/model.safetensors"} <= set(files)
    assert "hf-shrink" in API.model_info("user/trained").tags
    assert API.list_repo_commits("user/trained")[0].title == "done"
    AutoModelForSequenceClassification.from_pretrained("user/trained")
    API.delete_repo("user/trained")


def test_peft_push(hub, repo, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    tiny().push_to_hub(repo)
    base = AutoModelForSequenceClassification.from_pretrained(repo)
    adapter = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    # adapter.push_to_hub would lose PEFT's card: transformers writes its own README over it in a new repository
    adapter.save_pretrained(tmp_path)
    API.create_repo("user/adapter")
    API.upload_folder(folder_path=tmp_path, repo_id="user/adapter")
    assert f"base_model:adapter:{repo}" in API.model_info("user/adapter").tags
    peft.AutoPeftModelForSequenceClassification.from_pretrained("user/adapter", num_labels=3)
    API.delete_repo("user/adapter")


# ------------------------------------------------------------------ datasets
@pytest.mark.parametrize("private", [False, True])
def test_dataset(hub, private):
    from datasets import Dataset, load_dataset

    data = Dataset.from_dict({"text": [f"row {i}" for i in range(50)], "label": list(range(50))})
    data.push_to_hub("user/distilled", private=private, num_shards=2)
    data.select(range(5)).push_to_hub("user/distilled", split="test")
    data.select(range(7)).push_to_hub("user/distilled", config_name="ipc1")
    back = load_dataset("user/distilled")
    assert back["train"].to_dict() == data.to_dict()
    assert len(back["test"]) == 5
    assert len(load_dataset("user/distilled", "ipc1", split="train")) == 7
    assert next(iter(load_dataset("user/distilled", split="train", streaming=True)))["text"] == "row 0"
    info = API.dataset_info("user/distilled")
    assert info.private is private
    assert info.card_data.configs[0]["config_name"] == "default"
    API.delete_repo("user/distilled", repo_type="dataset")


# ------------------------------------------------------------------ faults
def upload(repo: str, data: bytes, name="f.safetensors"):
    return API.upload_file(path_or_fileobj=io.BytesIO(data), path_in_repo=name, repo_id=repo)


@pytest.mark.parametrize(
    "fault",
    [
        dict(kind="status", path="^/_lfs", method="PUT", status=503),
        dict(kind="status", path="^/_lfs", method="PUT", status=500, times=3),
        dict(kind="cut", path="^/_lfs", method="PUT", after_bytes=100_000),
        dict(kind="lost", path="^/_lfs", method="PUT"),
    ],
)
def test_upload_survives(hub, repo, fault):
    """What every supported client retries by itself: the LFS PUT."""
    data = os.urandom(400_000)
    rule = hub.fault(**fault)
    upload(repo, data)
    assert rule.times == 0
    assert sha(Path(hf_hub_download(repo, "f.safetensors")).read_bytes()) == sha(data)


def test_upload_that_fails_leaves_nothing(hub, repo):
    before = API.model_info(repo).sha
    hub.fault("cut", path="^/_lfs", method="PUT", times=99)
    with pytest.raises(FAILED):
        upload(repo, os.urandom(400_000))
    hub.clear_faults()
    assert API.model_info(repo).sha == before
    assert API.list_repo_files(repo) == [".gitattributes"]


def test_commit_is_not_retried_by_the_client(hub, repo):
    """create_commit sends /commit once: whoever wants a safe retry must add it, with parent_commit."""
    hub.fault("status", path="/commit/", status=503)
    with pytest.raises(HfHubHTTPError):
        upload(repo, b"x", "a.txt")
    assert len(seen("POST", "/commit/")) == 1


def test_lost_commit_answer(hub, repo):
    """The commit went through but the answer did not: with parent_commit a second try says 412, not a duplicate."""
    parent = API.model_info(repo).sha
    push = lambda: API.create_commit(  # noqa: E731
        repo, [CommitOperationAdd("a.txt", b"x")], commit_message="m", parent_commit=parent
    )
    hub.fault("lost", path="/commit/")
    with pytest.raises(FAILED) as error:
        push()
    assert not isinstance(error.value, HfHubHTTPError)
    assert len(API.list_repo_commits(repo)) == 2
    push()  # the client finds the file unchanged and commits nothing
    assert len(API.list_repo_commits(repo)) == 2
    assert "a.txt" in API.list_repo_files(repo)


def test_rate_limit(hub, repo):
    hub.fault("status", path="^/_lfs", method="PUT", status=429, retry_after=1)
    if V1:  # 0.36 does not retry 429
        upload(repo, os.urandom(50_000))
        assert len(seen("PUT", "/_lfs")) == 2
    else:
        with pytest.raises(FAILED):
            upload(repo, os.urandom(50_000))


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_download_goes_on_where_it_broke(hub, repo, kind, tmp_path):
    """0.36 never resumes within a call, but the next call goes on from the .incomplete file. 1.x and 2.x resume within
    the call after a closed connection, not after a reset one, and then the next call starts from the beginning."""
    data = os.urandom(40 * 2**20)
    upload(repo, data)
    rule = hub.fault(kind, path="^/_cdn", method="GET")
    heals = kind == "truncate" and V1
    with nullcontext() if heals else pytest.raises((OSError, TransportError)):
        hf_hub_download(repo, "f.safetensors", cache_dir=tmp_path)
    local = hf_hub_download(repo, "f.safetensors", cache_dir=tmp_path)
    assert rule.times == 0
    assert sha(Path(local).read_bytes()) == sha(data)
    ranges = [r["range"] for r in seen("GET", "/_cdn")]
    assert len(ranges) == 2
    assert bool(ranges[1]) == (heals or not V1)


def test_corrupt_download_is_not_noticed_by_the_client(hub, repo, tmp_path):
    """The clients check the size, never the sha256: a package that wants it must compare with the LFS oid."""
    data = os.urandom(100_000)
    upload(repo, data)
    hub.fault("corrupt", path="^/_cdn", method="GET")
    local = hf_hub_download(repo, "f.safetensors", cache_dir=tmp_path)
    assert sha(Path(local).read_bytes()) != sha(data) == API.get_paths_info(repo, "f.safetensors")[0].lfs.sha256


def test_offline_uses_cache_and_sends_nothing(hub, repo):
    tiny().push_to_hub(repo)
    code = f"from transformers import AutoModel; AutoModel.from_pretrained({repo!r})"
    snapshot_download(repo)
    HUB.requests.clear()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert HUB.requests == []


def test_many_at_once(hub, repo):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda i: upload(repo, os.urandom(20_000 + i), f"{i}.safetensors"), range(6)))
    assert len(API.list_repo_files(repo)) == 7
    assert len(API.list_repo_commits(repo)) == 7


def test_token_never_leaves_the_hub(hub, repo, tmp_path):
    """LFS contents lie on another host: neither uploads nor downloads may send it the token."""
    upload(repo, os.urandom(100_000))
    hf_hub_download(repo, "f.safetensors", cache_dir=tmp_path)
    storage = [r for r in seen("PUT", "/_lfs") + seen("GET", "/_cdn")]
    assert len(storage) == 2
    assert all(r["host"].startswith("localhost") for r in storage)
    assert not any(r["authorization"] for r in storage)


def test_gated_and_settings(hub, repo):
    API.update_repo_settings(repo, gated="auto")
    with pytest.raises(huggingface_hub.errors.GatedRepoError):
        hf_hub_download(repo, ".gitattributes", token="hf_other")
    API.update_repo_settings(repo, private=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token="hf_other").model_info(repo)


def test_fail_rate(hub, repo):
    hub.fail_rate = 0.3
    failed = 0
    for _ in range(40):
        try:
            API.model_info(repo)
        except HfHubHTTPError as error:
            failed += error.response.status_code == 503
    hub.clear_faults()
    assert 0 < failed < 40


def test_command_line(tmp_path):
    """The server as a program, and its admin addresses."""
    command = [sys.executable, "-m", "tests.hub.server", "--port", "0", "--token", "hf_x:ann:write"]
    command += ["--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        try:
            url = server.stdout.readline().strip().split("=")[1]
            api = HfApi(endpoint=url, token="hf_x")
            assert api.whoami()["name"] == "ann"
            body = json.dumps({"kind": "status", "path": "whoami", "status": 500, "times": 1}).encode()
            assert raw("POST", f"{url}/_admin/faults", body, token=None)[0] == 200
            with pytest.raises(HfHubHTTPError):
                api.whoami()
            api.whoami()
            log = json.loads(raw("GET", f"{url}/_admin/requests", token=None)[2])
            assert [r["status"] for r in log] == [200, 500, 200]
        finally:
            server.terminate()
