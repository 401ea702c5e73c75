import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, NamedSplit, Value
from huggingface_hub import HfApi

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import dataset_name, load_rows

FEATURES = Features(text=Value("string"), label=ClassLabel(names=["lost", "found"]))


def rows(count=4, start=0):
    texts = [f"row {start + i}" for i in range(count)]
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(count)]}, features=FEATURES)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "tickets"
    place.mkdir()
    for i, split in enumerate(["train", "validation", "test"]):
        rows(start=100 * i).to_parquet(place / f"{split}.parquet")
    return place


def test_folder_of_parquet_files(folder):
    loaded = load_rows(folder, "test")
    assert loaded["text"][:] == ["row 200", "row 201", "row 202", "row 203"]
    assert loaded.features == FEATURES
    assert loaded.split == "test"
    assert load_rows(str(folder), "validation")["text"][0] == "row 100"


def test_slices_of_a_split(folder):
    assert load_rows(folder, "test[1:3]")["text"][:] == ["row 201", "row 202"]
    assert load_rows(folder, "train[:50%]+test[3:]")["text"][:] == ["row 0", "row 1", "row 203"]


@pytest.mark.parametrize("split", ["dev", "dev[:10]", "train+dev", "test[:", ""])
def test_split_that_does_not_exist(folder, split):
    with pytest.raises(ShrinkError) as error:
        load_rows(folder, split)
    assert str(error.value) == (
        f"`split` must be one of ['train', 'validation', 'test'] (the splits of tickets), got {split!r}. "
        "Choose one of these."
    )


def test_several_splits_and_none_named(folder):
    with pytest.raises(ShrinkError, match=r"`split` must be given, because tickets has several: \['train', 'val"):
        load_rows(folder)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "jsonl"])
def test_one_file(tmp_path, kind):
    path = tmp_path / f"tickets.{kind}"
    write = {"parquet": rows().to_parquet, "csv": rows().to_csv}.get(kind, rows().to_json)
    write(path)
    loaded = load_rows(path)
    assert loaded["text"][:] == rows()["text"][:]
    assert loaded["label"][:] == [0, 1, 0, 1]
    with pytest.raises(ShrinkError, match=r"`split` must be one of \['train'\]"):
        load_rows(path, "test")


def test_file_named_after_its_split(folder):
    assert load_rows(folder / "test.parquet").split == "test"
    with pytest.raises(ShrinkError, match=r"one of \['test'\] \(the splits of test.parquet\), got 'train'"):
        load_rows(folder / "test.parquet", "train")


def test_saved_to_disk(tmp_path):
    rows().save_to_disk(tmp_path / "one")
    DatasetDict(train=rows(), test=rows(2, 7)).save_to_disk(tmp_path / "two")
    assert load_rows(tmp_path / "one")["text"][:] == rows()["text"][:]
    assert load_rows(tmp_path / "two", "test")["text"][:] == ["row 7", "row 8"]
    with pytest.raises(ShrinkError, match=r"one of \['train', 'test'\]"):
        load_rows(tmp_path / "two", "validation")


def test_instances():
    data = rows()
    assert load_rows(data) is data
    both = DatasetDict(train=data, test=rows(2))
    assert load_rows(both, "train") is data
    with pytest.raises(ShrinkError, match="`split` must be given"):
        load_rows(both)
    with pytest.raises(ShrinkError, match="`dataset` must have a length, got a stream"):
        load_rows(data.to_iterable_dataset())
    with pytest.raises(ShrinkError, match="`dataset` must be a Dataset, a path or a Hub id, got list"):
        load_rows([{"text": "a"}])


def test_split_of_a_dataset_is_not_chosen_twice():
    data = Dataset.from_dict({"text": ["a"]}, split=NamedSplit("train"))
    assert load_rows(data, "train") is data
    with pytest.raises(ShrinkError, match=r"`split` must be left out for a Dataset.*\(train\), got 'test'"):
        load_rows(data, "test")


def test_places_without_rows(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(ShrinkError, match="`dataset` must .* there is nothing at .*gone. Check the path"):
        load_rows(tmp_path / "gone")
    with pytest.raises(ShrinkError, match="`dataset` must hold parquet, CSV or JSON files"):
        load_rows(tmp_path / "empty", "train")
    with pytest.raises(ShrinkError, match="`dataset` must be a file of type .*got notes.docx"):
        load_rows(tmp_path / "notes.docx")


def test_broken_file(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(ShrinkError, match="`dataset` must be a dataset that can be read"):
        load_rows(tmp_path / "train.parquet")


def test_names(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert dataset_name("PolyAI/banking77") == "PolyAI/banking77"
    assert dataset_name(folder) == dataset_name(".") == "tickets"
    assert dataset_name(folder / "test.parquet") == "test.parquet"
    assert "/" not in dataset_name(load_rows(folder, "test"))
    assert dataset_name(rows()) == "Dataset"


# ------------------------------------------------------------------ the Hub
def upload(repo_id, folder, token="hf_write", **settings):
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", exist_ok=True, **settings)
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset")


def test_dataset_of_the_hub(hub, folder):
    upload("user/tickets", folder)
    assert load_rows("user/tickets", "test")["text"][0] == "row 200"
    with pytest.raises(ShrinkError, match=r"`split` must be one of \['train', 'validation', 'test'\].*got 'dev'"):
        load_rows("user/tickets", "dev")


def test_cached_dataset_needs_no_network(hub, folder, no_network):
    upload("user/cached-tickets", folder)
    load_rows("user/cached-tickets", "train")
    no_network()
    assert load_rows("user/cached-tickets", "train")["text"][0] == "row 0"


def test_dataset_that_may_not_be_read(hub, folder, no_network):
    upload("other/private-tickets", folder, "hf_other", private=True)
    upload("other/gated-tickets", folder, "hf_other")
    HfApi(token="hf_other").update_repo_settings("other/gated-tickets", gated="auto", repo_type="dataset")
    missing = (
        "`dataset` must be a dataset that can be read, got '{}': there is no such folder here and no such repository"
    )
    for name in ("user/never", "never", "other/private-tickets"):
        with pytest.raises(ShrinkError, match=missing.format(name)):
            load_rows(name, "train")
    with pytest.raises(ShrinkError, match="its authors grant access one by one.*/datasets/other/gated-tickets"):
        load_rows("other/gated-tickets", "train")
    no_network()
    with pytest.raises(ShrinkError, match="'user/never': the Hub cannot be reached and the cache lacks it"):
        load_rows("user/never", "train")
