"""`hf-shrink cache-teacher`, and `distill --teacher-cache` from what it left."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

from hf_shrink.distillation import TeacherCache
from hf_shrink.distillation.presets import PRESETS
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs import load_model
from tests.cli.distilling import save_teacher
from tests.distillation.caching import CountedForwards
from tests.distillation.tasks import TEXTS


@pytest.fixture
def cache(run, teacher, rows, tmp_path):
    """Run the command on the classifier."""

    def call(*more):
        return run("cache-teacher", "--teacher", teacher, "--dataset", rows, "--output-dir", tmp_path / "cache", *more)

    return call


@pytest.fixture
def distill(run, teacher, rows, tmp_path):
    """Distil from the cache."""

    def call(*more):
        settings = ("--output-dir", tmp_path / "out", "--teacher-cache", tmp_path / "cache", "--num-train-epochs", 2)
        return run("distill", "--teacher", teacher, "--dataset", rows, *settings, *more)

    return call


def test_it_says_what_it_made(cache, tmp_path):
    said = cache("--max-length", 6, "--batch-size", 3).stdout.splitlines()[-1]
    found = TeacherCache.load(tmp_path / "cache")
    size = sum(file.stat().st_size for file in tmp_path.glob("cache/data/*"))
    assert said == f"8 rows, {size / 8:,.0f} bytes a row, in {tmp_path / 'cache'}"
    assert len(found) == 8
    assert (found.settings.max_length, found.settings.hidden_layers) == (6, ())


def test_layers_and_pooling_are_kept_as_they_are_named(cache, tmp_path):
    cache("--hidden-layers", "-1", "--hidden-layers", 0, "--pooling", "mean")
    settings = TeacherCache.load(tmp_path / "cache").settings
    assert (settings.hidden_layers, settings.pooling) == ((0, 3), "mean")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_served_by_its_one_flag_and_the_teacher_is_not_called(
    cache, distill, run, tmp_path, monkeypatch, preset
):
    cache("--preset", preset)
    counted = []

    def watched(*args, **kwargs):
        model = load_model(*args, **kwargs)
        counted.append(CountedForwards(model))
        return model

    monkeypatch.setattr("hf_shrink.cli.distill_stages.load_model", watched)
    distill("--preset", preset)
    assert isinstance(run.last.teacher, TeacherCache)
    assert [forwards.rows for forwards in counted] == [0]  # the student is a copy, made before any hook counts
    assert run.log["kd_loss"] > 0
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.num_hidden_layers == 2
    (method,) = json.loads((tmp_path / "out" / "shrink_report.json").read_text())["provenance"]["methods"]
    assert method["options"]["teacher_cache"] is True


def test_a_cached_run_learns_what_a_run_beside_the_teacher_learns(cache, distill, run, teacher, rows, tmp_path):
    cache("--preset", "classification")
    distill()
    cached = run.log
    beside = ("--output-dir", tmp_path / "beside", "--num-train-epochs", 2)
    run("distill", "--teacher", teacher, "--dataset", rows, *beside)
    for name in ("kd_loss", "ce_loss", "hidden_loss"):
        assert run.log[name] == pytest.approx(cached[name], rel=1e-2)


def test_a_second_dataset_joins_the_cache(cache, distill, run, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text("\n".join(json.dumps({"text": f"{text} with a new pin"}) for text in TEXTS[:3]))
    cache("--preset", "classification")
    with pytest.raises(ShrinkError, match="`teacher_model` \\(the cache\\) must hold every training row"):
        distill("--transfer-dataset", more)
    said = cache("--preset", "classification", "--dataset", more).output
    assert "11 rows" in said
    distill("--transfer-dataset", more, "--output-dir", tmp_path / "again")
    assert len(run.last.train_dataset) == 11


def test_a_cache_without_what_the_preset_compares_is_refused_with_both_ways_out(cache, distill, run):
    cache()
    with pytest.raises(ShrinkError, match="cache-teacher --preset classification, or leave them out with --preset no"):
        distill()
    assert not run.trainers


def test_a_cache_of_another_teacher_is_refused(cache, run, rows, tmp_path):
    cache()
    other = save_teacher(tmp_path / "other", initializer_range=0.1)
    settings = ("--output-dir", tmp_path / "out", "--teacher-cache", tmp_path / "cache")
    with pytest.raises(ShrinkError, match="`teacher_cache` must hold the answers of `teacher`"):
        run("distill", "--teacher", other, "--dataset", rows, *settings)
    assert not run.trainers


def test_an_unknown_preset_is_refused_before_any_work(cache, tmp_path):
    with pytest.raises(ShrinkError, match="`preset` must be one of"):
        cache("--preset", "clasification")
    assert not (tmp_path / "cache").exists()
