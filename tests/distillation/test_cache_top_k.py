"""Caches of the likeliest tokens: every row found, only what a student hears kept, and training from them."""

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, DataCollatorForTokenClassification

from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.cache_columns import bytes_a_token
from hf_shrink.distillation.token_packing import VOCABULARY_TASKS
from hf_shrink.distillation.views import view_of
from hf_shrink.errors import ShrinkError
from tests.distillation.caching import CountedForwards, live_teacher, make_cache, padded
from tests.distillation.one_step import ALPHA, TEMPERATURE, one_step
from tests.distillation.tasks import TASK_CASES, TEXTS, VOCABULARY, gradient_by_hand
from tests.models import tiny_tokenizer

K = 6


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A cache a task, made once."""
    made = {}

    def cache(task):
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            make_cache(folder, task, top_k=K)
            made[task] = TeacherCache.load(folder)
        return made[task]

    return cache


def batch_of(task, rows=None):
    rows = TASK_CASES[task].rows() if rows is None else rows
    return dict(TASK_CASES[task].collator()([dict(row) for row in rows]))


def heard_in(task, batch):
    view = view_of(task, TASK_CASES[task].teacher().config, pooling="mean", hide_padding=True)
    return view.read(batch).heard


# ------------------------------------------------------------------ what is kept, and found
@pytest.mark.parametrize("task", VOCABULARY_TASKS)
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_row_is_found_in_any_batch_and_order(caches, task, batch_size):
    cache, case, teacher = caches(task), TASK_CASES[task], live_teacher(task)
    loader = DataLoader(case.rows(), batch_size, shuffle=True, collate_fn=cache.collate(case.collator()))
    for batch in [*loader, *loader]:  # epochs
        assert all(tensor.shape[-1] != VOCABULARY for tensor in batch.values())
        assert batch["teacher_scores"].shape == batch["teacher_ids"].shape == (*batch["teacher_tail"].shape, K)
        scores, heard = cache(batch).scores, heard_in(task, batch)
        expected = teacher(batch).scores.log_softmax(-1)
        assert scores.shape == expected.shape
        assert scores.isfinite().all()
        torch.testing.assert_close(scores[heard].exp().sum(-1), torch.ones(int(heard.sum())), rtol=0, atol=1e-5)
        top, ids = expected[heard].topk(K)
        torch.testing.assert_close(scores[heard].gather(-1, ids), top, rtol=0, atol=0.1)
        rest = scores[heard].scatter(-1, ids, -torch.inf).logsumexp(-1)
        torch.testing.assert_close(rest.exp(), 1 - top.exp().sum(-1), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("task", VOCABULARY_TASKS)
def test_only_what_a_student_hears_is_kept(caches, task):
    column = caches(task).rows.data.column("likeliest").combine_chunks()
    rows = TASK_CASES[task].rows().select(range(7)) if task == "masked_lm" else None  # two of its rows are the same
    heard = int(heard_in(task, batch_of(task, rows)).sum())
    assert len(column.flatten()) == heard < batch_of(task)["input_ids"].numel()
    assert bytes_a_token(caches(task).rows) == caches(task).packing.width == 14  # 6 ids of 5 bits, 6 codes, 4 bytes
    assert column.flatten().flatten().nbytes == 14 * heard


COLLATORS = {"masked_lm": DataCollatorForTokenClassification}


@pytest.mark.parametrize("task", VOCABULARY_TASKS)
@pytest.mark.parametrize("options", [{"padding": "max_length", "max_length": 32}, {"pad_to_multiple_of": 16}])
def test_other_padding_hits(caches, task, options):
    cache, rows = caches(task), [dict(row) for row in TASK_CASES[task].rows()]
    collator = padded(COLLATORS.get(task, DataCollatorForSeq2Seq), **options)
    usual, other = (cache.collate(collate)(rows) for collate in (TASK_CASES[task].collator(), collator))
    assert other["input_ids"].shape[1] > usual["input_ids"].shape[1]
    one, two = (cache(batch).scores[heard_in(task, batch)] for batch in (usual, other))
    assert torch.equal(one, two)


def test_padding_on_the_left_hits(caches):
    cache, rows = caches("causal_lm"), [dict(row) for row in TASK_CASES["causal_lm"].rows()]
    left = cache.collate(padded(DataCollatorForSeq2Seq, side="left"))(rows)
    usual = cache.collate(TASK_CASES["causal_lm"].collator())(rows)
    assert left["attention_mask"][1, 0] == 0
    one, two = (cache(batch).scores[heard_in("causal_lm", batch)] for batch in (usual, left))
    assert torch.equal(one, two)


@pytest.mark.parametrize("task", VOCABULARY_TASKS)
def test_labels_at_other_tokens_make_another_row(caches, task):
    cache, batch = caches(task), batch_of(task)
    row = next(i for i, labels in enumerate(batch["labels"]) if (labels != -100).sum() > 1)
    batch["labels"][row, (batch["labels"][row] != -100).nonzero()[0]] = -100
    if task == "seq2seq_lm":  # what the decoder reads is as before
        start = torch.zeros(len(batch["labels"]), 1, dtype=torch.long)
        batch["decoder_input_ids"] = torch.cat([start, batch_of(task)["labels"][:, :-1].clamp(min=0)], dim=1)
    assert cache(batch) is None
    assert cache.answer(batch) == {}
    assert "1 of the 8 rows" in str(cache.not_found(batch))
    assert "labels at other tokens, other truncation" in str(cache.not_found(batch))


def test_other_labels_at_the_same_tokens_do_not_count(caches):
    batch = batch_of("masked_lm")
    batch["labels"] = torch.where(batch["labels"] != -100, 7, -100)
    assert "teacher_scores" in caches("masked_lm").answer(batch)


@pytest.mark.parametrize("task", ["masked_lm", "causal_lm"])
def test_rows_without_labels_keep_all_that_they_attend_to(tmp_path, task):
    rows = TASK_CASES[task].rows().remove_columns("labels")
    cache = make_cache(tmp_path, task, dataset=rows, data_collator=padded(DataCollatorForSeq2Seq), top_k=K)
    batch = cache.collate(padded(DataCollatorForSeq2Seq))([dict(row) for row in rows])
    heard = heard_in(task, batch)
    assert len(cache.rows.data.column("likeliest").combine_chunks().flatten()) >= heard.sum() - 3
    expected = live_teacher(task)(batch).scores[heard]
    assert torch.equal(cache(batch).scores[heard].argmax(-1), expected.argmax(-1))


def test_a_row_in_which_nothing_is_heard_takes_nothing(tmp_path):
    encoded = tiny_tokenizer()(TEXTS, return_token_type_ids=False)
    silent = Dataset.from_dict({**encoded, "labels": [[-100] * len(ids) for ids in encoded["input_ids"]]})
    cache = make_cache(tmp_path, "causal_lm", dataset=silent, top_k=K)
    assert len(cache) == 8
    assert len(cache.rows.data.column("likeliest").combine_chunks().flatten()) == 0
    assert (
        cache(cache.collate(TASK_CASES["causal_lm"].collator())([dict(row) for row in silent])).scores.isfinite().all()
    )


def test_hidden_states_are_kept_of_all_tokens(tmp_path):
    cache = make_cache(tmp_path, "causal_lm", top_k=K, hidden_layers=[-1])
    batch = cache.collate(TASK_CASES["causal_lm"].collator())([dict(row) for row in TASK_CASES["causal_lm"].rows()])
    own = cache.reader.tokens(batch)
    (states,) = cache(batch, hidden=True).hidden
    (expected,) = live_teacher("causal_lm", layers=(3,))(batch, hidden=True).hidden
    torch.testing.assert_close(states[own], expected[own], rtol=1e-3, atol=1e-2)


# ------------------------------------------------------------------ settings
def test_another_top_k_is_another_cache(tmp_path):
    make_cache(tmp_path, "causal_lm", top_k=K)
    for other in (None, K + 1):
        with pytest.raises(ShrinkError, match=rf"`output_dir` must be .*: top_k {K} there, {other} here"):
            make_cache(tmp_path, "causal_lm", top_k=other)
    teacher = TASK_CASES["causal_lm"].teacher()
    counted = CountedForwards(teacher)
    again = make_cache(tmp_path, "causal_lm", teacher=teacher, top_k=K)
    assert (len(again), counted.rows, again.settings.top_k) == (8, 0, K)


def test_bad_values_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ShrinkError, match="`top_k` must be None for single_label_classification, got 4"):
        make_cache(tmp_path / "c", top_k=4)
    with pytest.raises(ShrinkError, match=r"`top_k` must be a whole number in \[1, "):
        make_cache(tmp_path / "c", "causal_lm", top_k=0)
    assert not (tmp_path / "c").exists()


def test_an_even_tail_is_not_softened(caches, tmp_path):
    cache = caches("causal_lm")
    cache.fitted(task="causal_lm", temperature=1.0)
    with pytest.raises(ShrinkError, match=r"`temperature` must be 1 for a teacher's cache with top_k, got 2.0"):
        cache.fitted(task="causal_lm", temperature=2.0)
    make_cache(tmp_path, "causal_lm").fitted(task="causal_lm", temperature=2.0)


# ------------------------------------------------------------------ training
@pytest.mark.parametrize("task", VOCABULARY_TASKS)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (1, 8)])
def test_the_whole_vocabulary_gives_the_teachers_gradient(tmp_path, task, batch_size, accumulation):
    cache = make_cache(tmp_path / "cache", task, top_k=VOCABULARY)
    gradient, _ = one_step(tmp_path, batch_size, accumulation, task=task, teacher_model=cache)
    expected = gradient_by_hand(TASK_CASES[task], ALPHA, TEMPERATURE)
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=5e-2, atol=3e-2)


@pytest.mark.parametrize("task", VOCABULARY_TASKS)
def test_the_likeliest_give_nearly_the_teachers_gradient(tmp_path, caches, task):
    options = {"task": task, "temperature": 1.0, "alpha": 1.0}
    found, _ = one_step(tmp_path, 4, 2, teacher_model=caches(task), **options)
    exact, _ = one_step(tmp_path, 4, 2, teacher_model=TASK_CASES[task].teacher(), **options)
    one, two = (torch.cat([gradient[name].flatten() for name in exact]) for gradient in (found, exact))
    assert torch.cosine_similarity(one, two, dim=0) > 0.95


def test_workers_bring_them_in_every_epoch(tmp_path, caches):
    losses = []
    for workers in (0, 1):
        options = {"max_steps": 8, "dataloader_num_workers": workers, "temperature": 1.0}
        _, trainer = one_step(tmp_path, 2, 1, task="causal_lm", teacher_model=caches("causal_lm"), **options)
        losses.append([entry["kd_loss"] for entry in trainer.state.log_history if "kd_loss" in entry])
    assert len(losses[0]) == 8
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
