"""TeacherCache against the teacher that it stands in for: every task, any order, batch and padding."""

import json
import pickle

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
)

from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.cache_settings import FILE
from hf_shrink.errors import ShrinkError
from tests.distillation.caching import TASK, live_teacher, make_cache, padded
from tests.distillation.tasks import CLASSES, TASK_CASES, TEXTS
from tests.models import tiny_tokenizer

HALF = {"rtol": 1e-3, "atol": 2e-3}  # 11 bits of logits below 16, after other sums over the padding
LAYERED = [task for task in TASK_CASES if task != "seq2seq_lm"]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A cache a task, with two layers where the family has one stack of them; made once."""
    made = {}

    def cache(task=TASK):
        if task not in made:
            layers = None if task == "seq2seq_lm" else [1, -1]
            made[task] = make_cache(tmp_path_factory.mktemp(task), task, hidden_layers=layers)
        return made[task]

    return cache


def real(task, cache, batch, tensor):
    """Where a tensor of (B, T, …) or (B, …) holds what a row's own."""
    own = cache.reader.scored(batch)
    if own is None:
        return torch.ones(tensor.shape, dtype=torch.bool)
    own = own.unsqueeze(1) if task == "question_answering" else own.unsqueeze(-1)
    return own.expand(tensor.shape)


@pytest.mark.parametrize("task", TASK_CASES)
@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_scores_are_the_teachers_in_any_batch_and_order(caches, task, batch_size):
    cache, case, teacher = caches(task), TASK_CASES[task], live_teacher(task)
    loader = DataLoader(case.rows(), batch_size, shuffle=True, collate_fn=cache.collate(case.collator()))
    for _ in range(2):  # epochs
        for batch in loader:
            assert batch["teacher_scores"].dtype == torch.float16
            taught, expected = cache(batch), teacher(batch)
            assert taught.scores.shape == expected.scores.shape
            assert taught.scores.dtype == torch.float32
            own = real(task, cache, batch, taught.scores)
            torch.testing.assert_close(taught.scores[own], expected.scores[own], **HALF)
            assert taught.hidden == ()


@pytest.mark.parametrize("task", LAYERED)
def test_hidden_states_are_the_teachers(caches, task):
    cache, case = caches(task), TASK_CASES[task]
    batch = cache.collate(case.collator())([dict(row) for row in case.rows()])
    taught, expected = cache(batch, hidden=True), live_teacher(task, layers=(1, 3))(batch, hidden=True)
    own = cache.reader.tokens(batch)
    for states, wanted in zip(taught.hidden, expected.hidden, strict=True):
        assert states.shape == wanted.shape
        keep = slice(None) if own is None else own
        torch.testing.assert_close(states[keep], wanted[keep], rtol=1e-3, atol=1e-2)


def test_pooled_hidden_states_are_one_vector_a_row(tmp_path):
    cache = make_cache(tmp_path, hidden_layers=[0, 2], pooling="mean")
    batch = cache.collate(TASK_CASES[TASK].collator())([dict(row) for row in TASK_CASES[TASK].rows()])
    taught = cache(batch, hidden=True)
    expected = live_teacher(layers=(0, 2), pooling="mean")(batch, hidden=True)
    assert [states.shape for states in taught.hidden] == [(8, 32), (8, 32)]
    for states, wanted in zip(taught.hidden, expected.hidden, strict=True):
        torch.testing.assert_close(states, wanted, **HALF)


COLLATORS = {
    "token_classification": DataCollatorForTokenClassification,
    "masked_lm": DataCollatorForTokenClassification,
    "causal_lm": DataCollatorForSeq2Seq,
    "seq2seq_lm": DataCollatorForSeq2Seq,
    "image_classification": None,
    "audio_classification": None,
}


@pytest.mark.parametrize("task", [task for task in TASK_CASES if COLLATORS.get(task, True)])
@pytest.mark.parametrize("options", [{"padding": "max_length", "max_length": 32}, {"pad_to_multiple_of": 16}])
def test_other_padding_hits(caches, task, options):
    cache, rows = caches(task), [dict(row) for row in TASK_CASES[task].rows()]
    collator = padded(COLLATORS.get(task, DataCollatorWithPadding), **options)
    usual = cache.collate(TASK_CASES[task].collator())(rows)
    other = cache.collate(collator)(rows)
    assert other["input_ids"].shape[1] > usual["input_ids"].shape[1]
    one, two = cache(usual).scores, cache(other).scores
    assert torch.equal(one[real(task, cache, usual, one)], two[real(task, cache, other, two)])
    if task == "question_answering":
        torch.testing.assert_close(one.softmax(-1).max(-1), two.softmax(-1).max(-1))
        assert two.softmax(-1)[~real(task, cache, other, two)].sum() == 0


@pytest.mark.parametrize("task", ["single_label_classification", "question_answering", "causal_lm"])
def test_padding_on_the_left_hits(caches, task):
    cache, rows = caches(task), [dict(row) for row in TASK_CASES[task].rows()]
    collator = padded(COLLATORS.get(task, DataCollatorWithPadding), side="left")
    usual, left = cache.collate(TASK_CASES[task].collator())(rows), cache.collate(collator)(rows)
    assert left["attention_mask"][1, 0] == 0
    one, two = cache(usual).scores, cache(left).scores
    assert torch.equal(one[real(task, cache, usual, one)], two[real(task, cache, left, two)])


def other_rows(**changes):
    return Dataset.from_dict({**tiny_tokenizer()(TEXTS, **changes), "labels": CLASSES})


def test_a_row_that_is_not_there_leaves_the_batch_as_it_is(caches):
    collate = caches().collate(TASK_CASES[TASK].collator())
    cut = other_rows(truncation=True, max_length=5)
    known, longer = collate([dict(cut[i]) for i in (1, 4)]), collate([dict(cut[i]) for i in (1, 3)])
    assert "teacher_scores" in known
    assert longer.keys() == TASK_CASES[TASK].collator()([dict(cut[1])]).keys()
    assert caches()(longer) is None
    error = caches().not_found(longer)
    assert isinstance(error, ShrinkError)
    assert "1 of the 2 rows of a batch are not among the 8 " in str(error)
    assert "other truncation" in str(error)


def test_the_error_names_a_tensor_that_the_rows_lost(caches):
    batch = dict(TASK_CASES[TASK].collator()([dict(row) for row in other_rows()]))
    names = sorted(caches().reader.inputs(batch))
    del batch["attention_mask"]
    assert caches().answer(batch) == {}
    message = str(caches().not_found(batch))
    assert "8 of the 8 rows" in message
    assert f"it read {names} of each row, and this batch holds {names[1:]}" in message


def test_lookups_run_in_workers(caches):
    cache, case = caches(), TASK_CASES[TASK]
    again = pickle.loads(pickle.dumps(cache.collate(case.collator())))
    loader = DataLoader(case.rows(), 4, collate_fn=again, num_workers=1, multiprocessing_context="spawn")
    scores = torch.cat([batch["teacher_scores"] for batch in loader])
    assert torch.equal(scores, cache.collate(case.collator())([dict(row) for row in case.rows()])["teacher_scores"])


def test_rows_stay_on_disk(caches):
    cache = caches()
    assert len(cache) == 8
    assert [file["filename"] for file in cache.rows.cache_files] == [str(cache.path / "data" / "train-00000.arrow")]
    assert len(pickle.dumps(cache.rows)) < 10_000


def test_it_loads_again(caches):
    cache = caches()
    loaded = TeacherCache.load(str(cache.path))
    assert loaded.settings == cache.settings
    assert loaded.layers == (1, 3)
    assert loaded.parameters == live_teacher().parameters
    config = AutoConfig.from_pretrained(cache.path)
    assert loaded.config.to_dict() == config.to_dict()
    assert config.architectures == ["BertForSequenceClassification"]


def test_classes_come_in_the_students_order(caches):
    index = torch.tensor([2, 0, 1])
    batch = caches().collate(TASK_CASES[TASK].collator())([dict(row) for row in TASK_CASES[TASK].rows()])
    both = caches()(batch, hidden=True).hidden
    fitted = caches().fitted(task=TASK, index=index, layers=(3,))
    assert torch.equal(fitted(batch).scores, caches()(batch).scores[:, index])
    batch = fitted.collate(TASK_CASES[TASK].collator())([dict(row) for row in TASK_CASES[TASK].rows()])
    (states,) = fitted(batch, hidden=True).hidden
    assert torch.equal(states, both[1])


MISFITS = {
    "task": ({"task": "regression"}, "must be of a model for regression .*, got one for single_label"),
    "layers": ({"layers": (0, 1)}, r"`layer_map` must name layers .*\[1, 3\].*got \[0\]"),
    "pooling": ({"layers": (1,), "pooling": "cls"}, "`pooling` must be None, as the cache was made, got 'cls'"),
    "embeddings": ({"embedding_pooling": "cls"}, "`pooling` must be None"),
    "tokenizer": ({"processing_class": tiny_tokenizer(["other"])}, "tokenizer of `processing_class`"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_student_that_does_not_fit_is_refused(tmp_path, case):
    changes, message = MISFITS[case]
    cache = make_cache(tmp_path, hidden_layers=[1, 3], processing_class=tiny_tokenizer())
    cache.fitted(task=TASK, layers=(3, 1), processing_class=tiny_tokenizer())
    with pytest.raises(ShrinkError, match=message):
        cache.fitted(**{"task": TASK, **changes})


def test_a_folder_without_a_cache_is_refused(tmp_path, caches):
    with pytest.raises(ShrinkError, match="`path_or_repo` must hold a teacher's cache, but .* has no teacher_cache"):
        TeacherCache.load(tmp_path)
    settings = json.loads((caches().path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**settings, "format_version": 99}))
    with pytest.raises(ShrinkError, match="must hold a cache of format 1, got 99"):
        TeacherCache.load(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(settings))
    with pytest.raises(ShrinkError, match="must hold finished rows"):
        TeacherCache.load(tmp_path)


def test_pictures_need_no_mask(caches):
    cache = caches("image_classification")
    rows = [dict(row) for row in TASK_CASES["image_classification"].rows()]
    batch = cache.collate(DefaultDataCollator())(rows)
    assert batch["teacher_scores"].shape == (8, 3)
    assert batch["teacher_hidden_0"].shape == (8, 5, 32)  # four patches and the class token
