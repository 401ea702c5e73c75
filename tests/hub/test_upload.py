"""push_to_hub against the loopback Hub: what arrives, and what happens when it does not arrive at once."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, load_dataset
from huggingface_hub import CommitOperationAdd, HfApi
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_shrink.errors import ShrinkError
from hf_shrink.hub import model_card, push_dataset_to_hub, push_to_hub
from hf_shrink.hub.dataset_card import _size
from hf_shrink.hub.retry import READ_TRIES, WRITE_TRIES
from hf_shrink.quantization import quantize
from tests.conftest import HUB
from tests.evaluation.example import example_report
from tests.hub.cards import front_matter, validate_card
from tests.models import tiny_bert_classifier, tiny_tokenizer

API = HfApi()
TEXT = ["my card is lost", "where is the money"]


def commits(repo_id, kind="model", revision=None):
    """Titles, newest first, without the one that makes the repository."""
    return [commit.title for commit in API.list_repo_commits(repo_id, repo_type=kind, revision=revision)][:-1]


def text_of(repo_id, name, kind="model", revision=None):
    return Path(API.hf_hub_download(repo_id, name, repo_type=kind, revision=revision)).read_text()


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXT, padding=True, return_tensors="pt")).logits


def pulled(repo_id):
    return AutoModelForSequenceClassification.from_pretrained(repo_id), AutoTokenizer.from_pretrained(repo_id)


def sent_commits():
    return [r for r in HUB.requests if r["method"] == "POST" and "/commit/" in r["path"]]


# ------------------------------------------------------------------ what arrives
def test_folder_with_report(repo_id, folder, model):
    report = example_report()
    report.to_json(folder / "shrink_report.json")
    (folder / "README.md").write_text("---\ntags: [hf-shrink]\n---\n\nan old card of ours")
    url = push_to_hub(folder, repo_id, commit_message="first")
    assert commits(repo_id) == ["first"]
    assert url.endswith(f"{repo_id}/commit/{API.model_info(repo_id).sha}")
    assert text_of(repo_id, "README.md") == model_card(report, repo_id=repo_id)
    assert text_of(repo_id, "shrink_report.json") == (folder / "shrink_report.json").read_text()
    assert validate_card(text_of(repo_id, "README.md"), "model") == ([], [])
    assert torch.equal(logits(*pulled(repo_id)), logits(model, tiny_tokenizer()))
    assert {"hf-shrink", "base_model:quantized:sentence-transformers/all-MiniLM-L6-v2"} <= set(
        API.model_info(repo_id).tags
    )


def test_states_and_pickles_stay_here(repo_id, folder):
    push_to_hub(folder, repo_id)
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", ".gitattributes"}
    assert set(API.list_repo_files(repo_id)) - {"special_tokens_map.json"} == expected


def test_instance_with_tokenizer_and_report(repo_id, model):
    push_to_hub(model, repo_id, processing_class=tiny_tokenizer(), report=example_report(), private=True)
    assert API.model_info(repo_id).private
    assert torch.equal(logits(*pulled(repo_id)), logits(model, tiny_tokenizer()))
    assert json.loads(text_of(repo_id, "shrink_report.json"))["rows"] == 3080


def test_the_card_is_the_last_operation(repo_id, folder, monkeypatch):
    sent, create = [], HfApi.create_commit

    def listening(self, repo_id, operations, **kwargs):
        sent.extend(operations)
        return create(self, repo_id, operations, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", listening)
    push_to_hub(folder, repo_id, report=example_report())
    assert sent[-1].path_in_repo == "README.md"


def test_report_argument_goes_before_the_folders_own(repo_id, folder):
    example_report().to_json(folder / "shrink_report.json")
    push_to_hub(folder, repo_id, report=replace(example_report(), rows=77))
    assert json.loads(text_of(repo_id, "shrink_report.json"))["rows"] == 77
    assert "77 rows" in text_of(repo_id, "README.md")


def test_existing_card_is_kept_without_a_report(repo_id, folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    push_to_hub(folder, repo_id)
    assert text_of(repo_id, "README.md") == "---\nlicense: mit\n---\n\n# Mine\n"


def test_the_card_is_that_of_the_model_pushed(repo_id, folder):
    """A report of teacher, student and int8 student, pushed with the student."""
    teacher, student, int8 = example_report().entries
    student = replace(student, size_bytes=(folder / "model.safetensors").stat().st_size)
    report = replace(example_report(), entries=(teacher, student, int8))
    push_to_hub(folder, repo_id, report=report)
    assert text_of(repo_id, "README.md") == model_card(report, entry=1, repo_id=repo_id)


def run_code(block):
    assert "hf_shrink" not in block
    names = {}
    exec(block, names)
    return names


def code_on_card(repo_id):
    return re.findall(r"```python\n(.*?)```", text_of(repo_id, "README.md"), re.DOTALL)


def test_the_code_on_the_card_runs(repo_id, folder):
    push_to_hub(folder, repo_id, report=replace(example_report(), entries=example_report().entries[:2]))
    (loading,) = code_on_card(repo_id)
    assert run_code(loading)["logits"].shape == (1, 3)


def test_the_code_on_an_onnx_card_runs(repo_id, model, tmp_path):
    pytest.importorskip("onnxruntime")
    artifact = quantize(model, "onnx-int8", output_dir=tmp_path / "int8", processing_class=tiny_tokenizer())
    push_to_hub(artifact.path, repo_id, report=example_report())
    optimum, plain = code_on_card(repo_id)
    assert run_code(plain)["session"].get_outputs()[0].name == "logits"
    if find_spec("optimum.onnxruntime") is not None:
        assert run_code(optimum)["logits"].shape == (1, 3)


def test_somebodys_own_card_goes_before_the_folders_report(repo_id, folder):
    own = "---\nlicense: mit\ntags: [tickets]\n---\n\n# Mine\n"
    (folder / "README.md").write_text(own)
    example_report().to_json(folder / "shrink_report.json")
    push_to_hub(folder, repo_id)
    assert text_of(repo_id, "README.md") == own
    push_to_hub(folder, repo_id, report=example_report())  # asked for
    assert text_of(repo_id, "README.md") == model_card(example_report(), repo_id=repo_id)


def test_new_shards_are_not_shadowed_by_old_weights(repo_id, folder, tmp_path):
    push_to_hub(folder, repo_id)
    API.upload_file(path_or_fileobj=b"x", path_in_repo="onnx/model.safetensors", repo_id=repo_id)
    other = tiny_bert_classifier(seed=1)
    other.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    push_to_hub(tmp_path / "sharded", repo_id)
    assert torch.equal(logits(*pulled(repo_id)), logits(other, tiny_tokenizer()))
    files = API.list_repo_files(repo_id)
    assert "model.safetensors.index.json" in files
    assert "model.safetensors" not in files
    assert {"tokenizer.json", "onnx/model.safetensors"} <= set(files)
    push_to_hub(folder, repo_id)
    assert [name for name in API.list_repo_files(repo_id) if name.startswith("model")] == ["model.safetensors"]


def test_branch_and_pull_request(repo_id, folder):
    push_to_hub(folder, repo_id, revision="int8", commit_message="on a branch")
    assert commits(repo_id, revision="int8") == ["on a branch"]
    assert commits(repo_id) == []
    push_to_hub(folder, repo_id, create_pr=True, commit_message="please")
    assert commits(repo_id) == []
    assert commits(repo_id, revision="refs/pr/1") == ["please"]
    with pytest.raises(ShrinkError, match="`revision` must be None with `create_pr`, got 'int8'"):
        push_to_hub(folder, repo_id, revision="int8", create_pr=True)


def test_a_bare_name_goes_under_ones_own(hub, folder):
    push_to_hub(folder, "bare-name", report=example_report())
    assert 'source = "user/bare-name"' in text_of("user/bare-name", "README.md")
    API.delete_repo("user/bare-name")


def test_a_public_repository_takes_no_private_push(repo_id, folder):
    API.create_repo(repo_id)
    with pytest.raises(ShrinkError, match="`private` must be False, as .* is already, got True"):
        push_to_hub(folder, repo_id, private=True)
    assert commits(repo_id) == []


def test_equal_files_make_no_second_commit(repo_id, folder):
    assert push_to_hub(folder, repo_id) == push_to_hub(folder, repo_id)
    assert len(commits(repo_id)) == 1


# ------------------------------------------------------------------ what is refused before any work
def test_folder_without_weights(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ShrinkError, match=r"`path_or_model` must hold weights, but .* has no \*.safetensors"):
        push_to_hub(tmp_path, "user/never")
    assert hub.requests == []


def test_folder_with_pickles_only(hub, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ShrinkError, match="has only pickles, .*pytorch_model.bin"):
        push_to_hub(tmp_path, "user/never")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("what", "message"),
    [("no/such/folder", "there is no folder no/such/folder"), (3, "got int"), (torch.nn.Linear(2, 2), "got Linear")],
)
def test_neither_folder_nor_model(what, message):
    with pytest.raises(ShrinkError, match=f"`path_or_model` must be a folder or a .*{message}"):
        push_to_hub(what, "user/never")


def test_processing_class_of_another_kind(folder):
    with pytest.raises(ShrinkError, match="`processing_class` must be a tokenizer or processor, got str"):
        push_to_hub(folder, "user/never", processing_class="bert")


def test_report_of_another_kind(folder):
    with pytest.raises(ShrinkError, match="`report` must be a ShrinkReport, got dict"):
        push_to_hub(folder, "user/never", report={})


def test_name_that_no_repository_can_bear(folder):
    with pytest.raises(ShrinkError, match="`repo_id` must be written as namespace/name, got 'a/b/c'"):
        push_to_hub(folder, "a/b/c")


def test_card_that_the_hub_refuses(repo_id, folder, waits):
    (folder / "README.md").write_text("---\nlicense: mine\n---\n")
    with pytest.raises(ShrinkError, match=r"`repo_id` must take the commit.*\"license\" with value \"mine\""):
        push_to_hub(folder, repo_id)
    assert commits(repo_id) == []
    assert waits == []


# ------------------------------------------------------------------ faults
@pytest.mark.parametrize("status", [408, 500, 503])
def test_commit_is_tried_again(repo_id, folder, waits, status):
    HUB.fault("status", path="/commit/", status=status, times=2)
    push_to_hub(folder, repo_id)
    assert len(commits(repo_id)) == 1
    assert len(sent_commits()) == 3
    assert waits[-2:] == [1.0, 2.0]


def test_lost_answer_makes_one_commit(repo_id, folder, waits):
    HUB.fault("lost", path="/commit/")
    url = push_to_hub(folder, repo_id, report=example_report())
    assert len(commits(repo_id)) == 1
    assert len(sent_commits()) == 1
    assert url.endswith(f"{repo_id}/commit/{API.model_info(repo_id).sha}")


def test_lost_answer_of_a_pull_request_opens_one(repo_id, folder, waits):
    API.create_repo(repo_id)
    HUB.fault("lost", path="/commit/")
    url = push_to_hub(folder, repo_id, create_pr=True)
    assert [p.ref for p in API.list_repo_refs(repo_id, include_pull_requests=True).pull_requests] == ["refs/pr/1"]
    assert url.endswith(API.repo_info(repo_id, revision="refs/pr/1").sha)


def test_lost_answer_and_another_writer(repo_id, folder, waits, monkeypatch):
    """Ours is found under the other's commit, and the other's work stays."""
    create = HfApi.create_commit

    def cut_off(self, *args, **kwargs):
        monkeypatch.setattr(HfApi, "create_commit", create)
        create(self, *args, **kwargs)
        create(API, repo_id, [CommitOperationAdd("config.json", b"{}")], commit_message="other")
        raise ConnectionResetError

    monkeypatch.setattr(HfApi, "create_commit", cut_off)
    url = push_to_hub(folder, repo_id, commit_message="ours")
    assert commits(repo_id) == ["other", "ours"]
    assert url.endswith(API.list_repo_commits(repo_id)[1].commit_id)
    assert text_of(repo_id, "config.json") == "{}"


def test_answer_lost_at_the_last_try(repo_id, folder, waits):
    HUB.fault("status", path="/commit/", status=503, times=WRITE_TRIES - 1)
    HUB.fault("lost", path="/commit/", times=1)
    push_to_hub(folder, repo_id)
    assert len(commits(repo_id)) == 1
    assert len(sent_commits()) == WRITE_TRIES


def test_reads_between_the_tries_are_as_patient(repo_id, folder, waits):
    API.create_repo(repo_id)
    HUB.fault("lost", path="/commit/")
    HUB.fault("status", path="/commits/", status=503, times=WRITE_TRIES - 1)
    push_to_hub(folder, repo_id)
    assert len(commits(repo_id)) == 1


def test_rate_limit_waits_as_long_as_asked(repo_id, folder, waits):
    HUB.fault("status", path="/commit/", status=429, retry_after=7)
    push_to_hub(folder, repo_id)
    assert 7.0 in waits
    assert len(commits(repo_id)) == 1


def test_rate_limit_beyond_patience_is_told(repo_id, folder, waits):
    HUB.fault("status", path="/commit/", status=429, retry_after=7200)
    with pytest.raises(ShrinkError, match="answers 429: .* Try again in 7200 seconds"):
        push_to_hub(folder, repo_id)
    assert waits == []


def test_head_that_moved_is_read_again(repo_id, folder, waits, monkeypatch):
    create, raced = HfApi.create_commit, []

    def racing(self, *args, **kwargs):
        if not raced:
            raced.append(create(API, repo_id, [CommitOperationAdd("other.txt", b"x")], commit_message="other"))
        return create(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", racing)
    push_to_hub(folder, repo_id, commit_message="ours")
    assert [r["status"] for r in sent_commits()] == [200, 412, 200]
    assert commits(repo_id) == ["ours", "other"]
    assert "other.txt" in API.list_repo_files(repo_id)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_unknown", "`token` must be valid for user/.*hf auth login"),
        ("hf_read", "`repo_id` must be open to this token, .* answers 403: .*write access"),
        ("hf_other", "`repo_id` must be open to this token, .* answers 403: .*write access"),
    ],
)
def test_rights_are_refused_at_once(repo_id, folder, waits, token, message):
    with pytest.raises(ShrinkError, match=message):
        push_to_hub(folder, repo_id, token=token)
    assert waits == []
    assert not API.repo_exists(repo_id)


def test_rights_withdrawn_before_the_commit(repo_id, folder, waits):
    HUB.fault("status", path="/commit/", status=403)
    with pytest.raises(ShrinkError, match="403"):
        push_to_hub(folder, repo_id)
    assert len(sent_commits()) == 1


def test_hub_that_stays_down(repo_id, folder, waits):
    HUB.fault("status", path="/commit/", status=503, times=99)
    with pytest.raises(ShrinkError, match="answers 503: .*Try again later"):
        push_to_hub(folder, repo_id)
    assert len(sent_commits()) == WRITE_TRIES
    HUB.clear_faults()
    assert commits(repo_id) == []


def test_no_network(folder, waits, monkeypatch):
    init = HfApi.__init__
    monkeypatch.setattr(HfApi, "__init__", lambda self, **kw: init(self, **{**kw, "endpoint": "http://127.0.0.1:9"}))
    with pytest.raises(ShrinkError, match="`repo_id` must be reached, got no answer for user/never"):
        push_to_hub(folder, "user/never")
    assert waits == [2.0**i for i in range(READ_TRIES - 1)]


def test_weights_that_break_off_arrive_in_the_end(repo_id, folder, waits, model):
    HUB.fault("cut", path="^/_lfs", method="PUT", times=8, after_bytes=1000)
    push_to_hub(folder, repo_id)
    assert len(commits(repo_id)) == 1
    assert torch.equal(logits(*pulled(repo_id)), logits(model, tiny_tokenizer()))


# ------------------------------------------------------------------ datasets
FEATURES = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=["lost", "found"]),
        "weight": Value("float32"),
        "soft_label": List(Value("float32")),
    }
)


def rows(count=20):
    columns = {
        "text": [f"row {i}" for i in range(count)],
        "label": [i % 2 for i in range(count)],
        "weight": [i / 8 for i in range(count)],
        "soft_label": [[0.25, 0.75]] * count,
    }
    return Dataset.from_dict(columns, features=FEATURES)


def test_dataset_round_trip(repo_id):
    data = rows()
    url = push_dataset_to_hub(data, repo_id, source="PolyAI/banking77", license="cc-by-4.0", commit_message="small")
    back = load_dataset(repo_id, split="train")
    assert back.features == data.features
    assert back.to_dict() == data.to_dict()
    assert commits(repo_id, "dataset") == ["small"]
    assert url.endswith(API.dataset_info(repo_id).sha)
    card = text_of(repo_id, "README.md", "dataset")
    assert validate_card(card, "dataset") == ([], [])
    data = front_matter(card)[0]
    assert data["dataset_info"]["splits"][0]["num_examples"] == 20
    assert data["source_datasets"] == ["PolyAI/banking77"]
    assert data["license"] == "cc-by-4.0"
    assert f'load_dataset("{repo_id}")' in card


def test_second_split_joins_the_first_and_the_same_split_is_replaced(repo_id):
    push_dataset_to_hub(rows(), repo_id, source="PolyAI/banking77", license="mit")
    push_dataset_to_hub(rows(6), repo_id, split="test")
    push_dataset_to_hub(rows(4), repo_id)
    back = load_dataset(repo_id)
    assert {name: len(split) for name, split in back.items()} == {"train": 4, "test": 6}
    card = text_of(repo_id, "README.md", "dataset")
    assert front_matter(card)[0]["license"] == "mit"
    assert "Made from PolyAI/banking77" in card


def test_split_of_other_features_is_refused(repo_id):
    push_dataset_to_hub(rows(), repo_id)
    with pytest.raises(ShrinkError, match=r"`dataset` must have the features of the splits .*\['train'\]"):
        push_dataset_to_hub(Dataset.from_dict({"a": [1]}), repo_id, split="test")
    assert len(commits(repo_id, "dataset")) == 1


def test_sizes_on_the_card(repo_id):
    push_dataset_to_hub(rows().select(range(0, 20, 4)), repo_id, split="test")
    push_dataset_to_hub(rows(), repo_id)
    push_dataset_to_hub(rows(), repo_id)
    info = front_matter(text_of(repo_id, "README.md", "dataset"))[0]["dataset_info"]
    parquet = [f for f in API.list_repo_tree(repo_id, "data", repo_type="dataset") if f.path.endswith(".parquet")]
    assert info["download_size"] == sum(f.size for f in parquet)
    sizes = {split["name"]: split["num_bytes"] for split in info["splits"]}
    assert sizes["test"] == round(sizes["train"] / 4)  # the selection counts its own rows only
    assert info["dataset_size"] == sum(sizes.values())


@pytest.mark.parametrize(("count", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**7, "10M<n<100M")])
def test_size_class(count, size):
    assert _size(count) == size


def test_what_the_datasets_library_pushed_stays(repo_id):
    """Its other configuration and split, and the words and metadata of a card that somebody wrote."""
    rows(3).push_to_hub(repo_id, split="test")
    rows(5).push_to_hub(repo_id, split="train")
    rows(7).push_to_hub(repo_id, "other")
    old = text_of(repo_id, "README.md", "dataset")
    own = old.replace("---\n", "---\npretty_name: Tickets\nlanguage: [en]\n", 1) + "\n# By hand\n"
    API.upload_file(path_or_fileobj=own.encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset")
    for _ in range(2):
        push_dataset_to_hub(rows(), repo_id)
    assert {name: len(split) for name, split in load_dataset(repo_id).items()} == {"train": 20, "test": 3}
    assert len(load_dataset(repo_id, "other", split="train")) == 7
    card = text_of(repo_id, "README.md", "dataset")
    assert validate_card(card, "dataset") == ([], [])
    assert "# By hand" in card
    assert front_matter(card)[0]["pretty_name"] == "Tickets"


def test_the_datasets_library_adds_to_what_we_pushed(repo_id):
    push_dataset_to_hub(rows(), repo_id, license="mit")
    rows(3).push_to_hub(repo_id, split="test")
    push_dataset_to_hub(rows(4), repo_id, split="validation")
    back = load_dataset(repo_id)
    assert {name: len(split) for name, split in back.items()} == {"train": 20, "test": 3, "validation": 4}
    assert front_matter(text_of(repo_id, "README.md", "dataset"))[0]["license"] == "mit"


def test_old_shards_under_other_names_do_not_double_the_rows(repo_id):
    rows(3).to_parquet(buffer := BytesIO())
    API.create_repo(repo_id, repo_type="dataset")
    for name in ("data/train-00000-of-00001-a1b2c3.parquet", "data/test-00000-of-00001.parquet"):
        API.upload_file(path_or_fileobj=buffer.getvalue(), path_in_repo=name, repo_id=repo_id, repo_type="dataset")
    push_dataset_to_hub(rows(), repo_id)
    assert {name: len(split) for name, split in load_dataset(repo_id).items()} == {"train": 20, "test": 3}


def test_files_that_no_card_declares_are_not_hidden(repo_id):
    API.create_repo(repo_id, repo_type="dataset")
    API.upload_file(path_or_fileobj=b"a\n1\n", path_in_repo="test.csv", repo_id=repo_id, repo_type="dataset")
    with pytest.raises(ShrinkError, match=r"`repo_id` must hold a dataset whose card .*would lose \['test.csv'\]"):
        push_dataset_to_hub(rows(), repo_id)
    assert len(commits(repo_id, "dataset")) == 1


def test_pictures_travel_inside(repo_id, tmp_path):
    from PIL import Image as Picture

    Picture.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "red.png")
    data = Dataset.from_dict({"image": [str(tmp_path / "red.png")]}).cast_column("image", Image())
    push_dataset_to_hub(data, repo_id)
    (tmp_path / "red.png").unlink()
    assert load_dataset(repo_id, split="train")[0]["image"].getpixel((1, 1)) == (200, 10, 10)


def test_shards_hold_all_rows_in_order_and_old_ones_go(repo_id, monkeypatch):
    monkeypatch.setattr("hf_shrink.hub.parquet.SHARD_BYTES", 300)
    push_dataset_to_hub(rows(), repo_id)
    files = API.list_repo_files(repo_id, repo_type="dataset")
    assert sum(name.endswith(".parquet") for name in files) > 1
    assert load_dataset(repo_id, split="train").to_dict() == rows().to_dict()
    monkeypatch.setattr("hf_shrink.hub.parquet.SHARD_BYTES", 10**6)
    push_dataset_to_hub(rows(), repo_id)
    assert [f for f in API.list_repo_files(repo_id, repo_type="dataset") if f.endswith(".parquet")] == [
        "data/train-00000-of-00001.parquet"
    ]


@pytest.mark.parametrize("kind", ["status", "lost"])
def test_dataset_commit_is_tried_again_and_made_once(repo_id, waits, kind):
    HUB.fault(kind, path="/commit/")
    push_dataset_to_hub(rows(), repo_id)
    assert len(commits(repo_id, "dataset")) == 1
    assert load_dataset(repo_id, split="train").to_dict() == rows().to_dict()


def test_dataset_input_is_checked(hub):
    with pytest.raises(ShrinkError, match="`dataset` must be a Dataset, got DatasetDict"):
        push_dataset_to_hub(DatasetDict(train=rows()), "user/never")
    with pytest.raises(ShrinkError, match="`split` must be a word such as 'train', got 'a b'"):
        push_dataset_to_hub(rows(), "user/never", split="a b")
    assert hub.requests == []
