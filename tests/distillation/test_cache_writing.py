"""cache_teacher: what is kept, what is left out, what is refused, and what happens when it is cut off."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import DataCollatorForLanguageModeling

from hf_shrink.distillation import cache_writing
from hf_shrink.distillation.cache import TeacherCache
from hf_shrink.distillation.cache_columns import open_parts, part_files
from hf_shrink.distillation.cache_writing import cache_teacher
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.fingerprints import weights_fingerprint
from tests.distillation.caching import TASK, CountedForwards, make_cache
from tests.distillation.gradients import in_processes
from tests.distillation.tasks import CLASSES, TASK_CASES, TEXTS
from tests.models import tiny_bert_classifier, tiny_tokenizer


def raw(**columns):
    return Dataset.from_dict({"text": TEXTS, "label": CLASSES, **columns})


def batch_of(rows, task=TASK):
    return TASK_CASES[task].collator()([dict(row) for row in rows])


# ------------------------------------------------------------------ what is kept
def test_a_classifiers_row_takes_two_bytes_a_class(tmp_path):
    rows = TASK_CASES[TASK].rows()
    many = Dataset.from_dict({"input_ids": [[2, 5 + i % 20, 5 + i // 20, 3] for i in range(400)]})
    cache = make_cache(tmp_path, dataset=many, batch_size=64)
    scores = cache.rows.data.column("scores")
    assert len(cache) == 400
    assert sum(chunk.nbytes for chunk in scores.chunks) == 2 * 3 * 400
    size = sum(path.stat().st_size for path in (tmp_path / "data").iterdir())
    assert size < 400 * (2 * 3 + 16 + 4) + 2000  # the keys, their offsets, and the file's frame
    assert len(rows) == 8


def test_raw_rows_are_tokenized(tmp_path):
    cache = make_cache(tmp_path, dataset=raw(), processing_class=tiny_tokenizer(), data_collator=None)
    assert cache.answer(batch_of(TASK_CASES[TASK].rows())).keys() == {"teacher_scores"}
    assert {"attention_mask", "input_ids"} <= set(cache.settings.inputs)


def test_raw_rows_are_cut_to_max_length(tmp_path):
    cache = make_cache(tmp_path, dataset=raw(), processing_class=tiny_tokenizer(), data_collator=None, max_length=5)
    cut = Dataset.from_dict(tiny_tokenizer()(TEXTS, truncation=True, max_length=5))
    assert cache.answer(batch_of(cut))
    assert not cache.answer(batch_of(TASK_CASES[TASK].rows()))
    assert cache.settings.max_length == 5


def test_teacher_and_tokenizer_from_a_folder(tmp_path):
    TASK_CASES[TASK].teacher().save_pretrained(tmp_path / "big")
    tiny_tokenizer().save_pretrained(tmp_path / "big")
    cache = make_cache(tmp_path / "c", teacher=tmp_path / "big", dataset=raw(), data_collator=None)
    assert cache.settings.teacher == "big"
    assert cache.settings.weights == weights_fingerprint(TASK_CASES[TASK].teacher())
    assert cache.answer(batch_of(TASK_CASES[TASK].rows()))


def test_equal_rows_are_kept_once_and_asked_about_once(tmp_path):
    teacher = TASK_CASES[TASK].teacher()
    counted = CountedForwards(teacher)
    rows = TASK_CASES[TASK].rows()
    cache = make_cache(tmp_path, teacher=teacher, dataset=concatenate_datasets([rows, rows.select([3, 3, 1])]))
    assert len(cache) == len(cache.rows) == counted.rows == 8


def test_a_second_dataset_joins(tmp_path):
    make_cache(tmp_path, dataset=TASK_CASES[TASK].rows().select(range(5)))
    teacher = TASK_CASES[TASK].teacher()
    counted = CountedForwards(teacher)
    cache = make_cache(tmp_path, teacher=teacher)
    assert (len(cache), counted.rows) == (8, 3)
    assert cache.answer(batch_of(TASK_CASES[TASK].rows()))


def test_long_rows_come_first_in_their_window(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_writing, "SORTED", 4)
    cache = make_cache(tmp_path)
    rows = TASK_CASES[TASK].rows()
    order = cache.keys.find(cache.reader.keys(batch_of(rows)))
    lengths = [len(rows[int(i)]["input_ids"]) for i in np.argsort(order)]
    assert lengths == [*sorted(lengths[:4], reverse=True), *sorted(lengths[4:], reverse=True)]
    assert lengths != sorted(lengths, reverse=True)


# ------------------------------------------------------------------ cut off
class CutOff(Exception):
    """The machine goes away."""


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch, killed):
    teacher = TASK_CASES[TASK].teacher()
    counted = CountedForwards(teacher)

    def fail(module, args, kwargs):
        if counted.rows > 4:
            raise CutOff

    handle = teacher.register_forward_pre_hook(fail, with_kwargs=True)
    if killed:  # nothing is tidied up: what has no final name is lost
        monkeypatch.setattr(cache_writing.PartWriter, "__exit__", lambda *args: None)
        monkeypatch.setattr("hf_shrink.distillation.cache_columns.PART_ROWS", 2)
    with pytest.raises(CutOff):
        make_cache(tmp_path, teacher=teacher, batch_size=2)
    monkeypatch.undo()
    handle.remove()
    assert len(open_parts(tmp_path)) == 4
    counted.rows = 0
    cache = make_cache(tmp_path, teacher=teacher, batch_size=2)
    assert (len(cache), counted.rows) == (8, 4)
    assert not list((tmp_path / "data").glob("*.unfinished"))
    whole = make_cache(tmp_path.with_name("whole"), batch_size=2)
    batch = batch_of(TASK_CASES[TASK].rows())
    torch.testing.assert_close(cache.answer(batch), whole.answer(batch), rtol=1e-3, atol=1e-3)


def test_a_finished_run_asks_nothing_again(tmp_path):
    make_cache(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    teacher = TASK_CASES[TASK].teacher()
    counted = CountedForwards(teacher)
    assert len(make_cache(tmp_path, teacher=teacher)) == 8
    assert counted.rows == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == files


def without_mask(rows):
    return {name: tensor for name, tensor in batch_of(rows).items() if name != "attention_mask"}


OTHERS = {
    "teacher": (lambda: {"teacher": tiny_bert_classifier(seed=5)}, "weights"),
    "task": (lambda: {"task": "multi_label_classification"}, "task"),
    "tokenizer": (lambda: {"processing_class": tiny_tokenizer(["other", "words"])}, "tokenizer"),
    "layers": (lambda: {"hidden_layers": [-1]}, "hidden_layers"),
    "inputs": (lambda: {"data_collator": without_mask}, "inputs"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_folder_of_something_else_is_refused(tmp_path, case):
    make_cache(tmp_path)
    changes, name = OTHERS[case]
    with pytest.raises(
        ShrinkError, match=rf"`output_dir` must be a new folder .*\): {name} .* there, .* here"
    ) as error:
        make_cache(tmp_path, **changes())
    assert str(error.value).endswith("Choose another folder.")
    assert len(TeacherCache.load(tmp_path)) == 8


def test_the_same_teacher_under_another_name_is_accepted(tmp_path):
    make_cache(tmp_path / "cache")
    TASK_CASES[TASK].teacher().save_pretrained(tmp_path / "renamed")
    assert len(make_cache(tmp_path / "cache", teacher=tmp_path / "renamed")) == 8


def test_other_files_are_not_overwritten(tmp_path):
    TASK_CASES[TASK].teacher().save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(
        ShrinkError, match="`output_dir` must be a new folder or a teacher's cache, but .* other files"
    ):
        make_cache(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


# ------------------------------------------------------------------ chance
def test_a_random_collator_is_refused(tmp_path):
    collator, rows = DataCollatorForLanguageModeling(tiny_tokenizer()), Dataset.from_dict(tiny_tokenizer()(TEXTS))
    with pytest.raises(ShrinkError, match="`data_collator` must make the same batch of the same rows.*dataset.map"):
        make_cache(tmp_path / "c", "masked_lm", dataset=rows, data_collator=collator)
    with pytest.raises(ShrinkError, match="`data_collator` must"):
        make_cache(tmp_path / "c", "masked_lm", dataset=rows, data_collator=None, processing_class=tiny_tokenizer())
    assert not (tmp_path / "c").exists()


def noisy(columns):
    return {"pixel_values": [torch.rand(3, 8, 8) for _ in columns["labels"]], "labels": columns["labels"]}


def shifted(columns):
    return {
        "pixel_values": [torch.full((3, 8, 8), float(i)) for i in columns["id"]],
        "labels": [0] * len(columns["id"]),
    }


def test_a_transform_makes_the_inputs_unless_it_is_random(tmp_path):
    rows = Dataset.from_dict({"id": range(8), "labels": [0] * 8})
    with pytest.raises(ShrinkError, match="the dataset's transform"):
        make_cache(tmp_path / "a", "image_classification", dataset=rows.with_transform(noisy))
    cache = make_cache(tmp_path / "b", "image_classification", dataset=rows.with_transform(shifted))
    assert len(cache) == 8
    assert cache.answer({"pixel_values": torch.full((1, 3, 8, 8), 5.0)})


class Drawing:
    """Draws from every generator, and uses nothing of it."""

    def __call__(self, rows):
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        return batch_of(rows)


def test_random_generators_are_left_as_they_were(tmp_path):
    teacher = TASK_CASES[TASK].teacher()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cache_teacher(teacher, TASK_CASES[TASK].rows(), tmp_path, data_collator=Drawing())
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1][1])  # noqa: NPY002
    assert np.random.get_state()[2] == before[1][2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


# ------------------------------------------------------------------ refused
REFUSED = {
    "teacher": (lambda: {"teacher": "no/such/teacher"}, "`model` must"),
    "empty": (lambda: {"dataset": raw().select([])}, "`dataset` must hold at least 1 row"),
    "batch size": (lambda: {"batch_size": 0}, "`batch_size` must be at least 1"),
    "layer": (lambda: {"hidden_layers": [4]}, r"`hidden_layers` must lie in \[-4, 3\], got \[4\]"),
    "pooling": (lambda: {"pooling": "sum"}, "`pooling` must be one of"),
    "no tokenizer": (lambda: {"dataset": raw()}, "`processing_class` must be given"),
    "nothing to read": (lambda: {"data_collator": lambda rows: {"x": torch.ones(len(rows))}}, "`dataset` must hold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises(ShrinkError, match=message) as error:
        make_cache(tmp_path / "cache", **changes())
    assert str(error.value).rstrip().endswith(".")
    assert not list(tmp_path.glob("cache/*")) or case == "batch size"


def test_hidden_states_of_an_encoder_decoder_are_refused(tmp_path):
    with pytest.raises(ShrinkError, match=r"`hidden_layers` must be None for this teacher \(t5\)"):
        make_cache(tmp_path, "seq2seq_lm", hidden_layers=[-1])


def test_scores_that_half_precision_cannot_hold_are_refused(tmp_path):
    teacher = TASK_CASES["regression"].teacher()
    with torch.no_grad():
        teacher.classifier.bias.fill_(1e6)
    with pytest.raises(ShrinkError, match="`teacher` must give finite values of at most 65504"):
        make_cache(tmp_path, "regression", teacher=teacher)


# ------------------------------------------------------------------ several processes
@pytest.mark.slow
def test_two_processes_share_the_rows(tmp_path):
    make_cache(tmp_path / "both", dataset=TASK_CASES[TASK].rows().select([0]))
    in_processes(2, tmp_path / "both", module="tests.distillation.cache_in_processes")
    both, alone = TeacherCache.load(tmp_path / "both"), make_cache(tmp_path / "alone")
    sizes = [len(Dataset.from_file(str(path))) for path in part_files(tmp_path / "both")]
    assert sizes == [1, 3, 4]  # the first row was there already
    batch = batch_of(TASK_CASES[TASK].rows())
    torch.testing.assert_close(both.answer(batch), alone.answer(batch), rtol=1e-3, atol=1e-3)
