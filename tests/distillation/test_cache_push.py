"""A cache goes to the loopback Hub and comes back."""

from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from huggingface_hub import HfApi

from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.errors import ShrinkError
from tests.distillation.caching import TASK, make_cache
from tests.distillation.tasks import TASK_CASES, VOCABULARY
from tests.hub.cards import validate_card

API = HfApi()


@pytest.fixture
def repo_id(hub):
    yield "user/tickets-teacher"
    API.delete_repo("user/tickets-teacher", repo_type="dataset", missing_ok=True)


def batch_of(task):
    return TASK_CASES[task].collator()([dict(row) for row in TASK_CASES[task].rows()])


def card_of(repo_id):
    return Path(API.hf_hub_download(repo_id, "README.md", repo_type="dataset")).read_text()


def titles(repo_id):
    return [commit.title for commit in API.list_repo_commits(repo_id, repo_type="dataset")][:-1]


@pytest.mark.parametrize("task", [TASK, "token_classification"])
def test_push_and_load(tmp_path, repo_id, task):
    cache = make_cache(tmp_path, task, hidden_layers=[-1], pooling="mean", max_length=16)
    url = cache.push_to_hub(repo_id, private=True, commit_message="first")
    assert url.endswith(API.dataset_info(repo_id).sha)
    assert API.dataset_info(repo_id).private
    assert titles(repo_id) == ["first"]
    back = TeacherCache.load(repo_id)
    assert back.settings == cache.settings
    assert (back.path / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()
    one, two = cache.answer(batch_of(task)), back.answer(batch_of(task))
    assert one.keys() == two.keys() == {"teacher_scores", "teacher_hidden_0"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = load_dataset(repo_id, split="train")
    assert plain.features == cache.rows.features
    assert plain.to_dict() == cache.rows.with_format(None).to_dict()


def test_the_card(tmp_path, repo_id):
    make_cache(tmp_path, hidden_layers=[-1], pooling="mean", max_length=16).push_to_hub(repo_id)
    card = card_of(repo_id)
    assert validate_card(card, "dataset") == ([], [])
    assert "What the teacher `BertForSequenceClassification` said" in card
    assert "for single_label_classification" in card
    assert "rows were cut to 16 tokens" in card
    assert "hidden states (mean of the tokens) of layers 3" in card
    assert f'TeacherCache.load("{repo_id}")' in card
    assert f'load_dataset("{repo_id}")' in card
    assert "| train | 8 |" in card


@pytest.mark.parametrize(("task", "top_k"), [("causal_lm", 6), ("causal_lm", None), (TASK, None)])
def test_top_k_comes_back_and_the_card_says_what_a_token_costs(tmp_path, repo_id, task, top_k):
    cache = make_cache(tmp_path, task, top_k=top_k)
    cache.push_to_hub(repo_id)
    back = TeacherCache.load(repo_id)
    assert back.settings == cache.settings
    assert back.settings.top_k == top_k
    assert torch.equal(back(back.answer(batch_of(task))).scores, cache(cache.answer(batch_of(task))).scores)
    card = card_of(repo_id)
    assert validate_card(card, "dataset") == ([], [])
    assert ("bytes a token" in card) == (task != TASK)
    if top_k is None:
        cost = "" if task == TASK else f" ({2 * VOCABULARY} bytes a token)"
        assert f"without padding and in half precision{cost}. The rows" in card
        assert "temperature" not in card
    else:
        assert "`likeliest` holds the 6 likeliest entries of the teacher's softmax" in card
        assert "(14 bytes a token)" in card
        assert 'DistillationTrainingArguments("student", temperature=1.0)' in card


def test_a_later_cache_replaces_an_earlier_one(tmp_path, repo_id, monkeypatch):
    monkeypatch.setattr("hf_shrink.distillation.cache_columns.PART_ROWS", 3)
    first = make_cache(tmp_path / "first", batch_size=1)
    first.push_to_hub(repo_id)
    revision = API.dataset_info(repo_id).sha
    monkeypatch.undo()
    make_cache(tmp_path / "second", "token_classification").push_to_hub(repo_id)
    files = [name for name in API.list_repo_files(repo_id, repo_type="dataset") if name.endswith(".arrow")]
    assert len(list((tmp_path / "first" / "data").iterdir())) == 3
    assert files == ["data/train-00000.arrow"]
    assert TeacherCache.load(repo_id).settings.task == "token_classification"
    assert TeacherCache.load(repo_id, revision=revision).settings == first.settings


def test_a_pull_request(tmp_path, repo_id):
    cache = make_cache(tmp_path)
    cache.push_to_hub(repo_id)
    cache.push_to_hub(repo_id, create_pr=True, commit_message="proposed")
    assert titles(repo_id) == ["Upload a teacher's cache"]


def test_a_repository_without_a_cache_is_refused(repo_id):
    API.create_repo(repo_id, repo_type="dataset")
    with pytest.raises(ShrinkError, match="`path_or_repo` must hold a teacher's cache"):
        TeacherCache.load(repo_id)
