"""`hf-shrink quantize`: what it leaves and says, what a dry run tells, and what is refused."""

import json
import shutil
from functools import partial

import pytest
from huggingface_hub import HfApi
from typer.main import get_command
from typer.testing import CliRunner

from hf_shrink.cli import quantize_stages
from hf_shrink.cli.main import app
from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation import compare
from hf_shrink.quantization import QUANTIZERS, QuantizedArtifact
from hf_shrink.quantization.sensitivity import SensitivityMap
from tests.cli.distilling import report, save_teacher, used

ONNX = QUANTIZERS["onnx-int8"]


def run(*arguments):
    done = CliRunner().invoke(app, ["quantize", *map(str, arguments)], catch_exceptions=False)
    return " ".join(done.output.split())


def edit(folder, **facts):
    record = json.loads((folder / "quantization.json").read_text())
    (folder / "quantization.json").write_text(json.dumps(record | facts))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(quantize_stages, "compare", partial(compare, latency_runs=2, peak_memory=False))


@pytest.fixture(scope="module")
def done(teacher, rows, tmp_path_factory):
    """One real run: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("quantize") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize_stages, "compare", partial(compare, latency_runs=2, peak_memory=False))
        said = run(teacher, "--method", "onnx-int8", "--dataset", rows, "--ignore", "classifier", "-o", folder)
    return folder, said


@pytest.fixture
def requantized(done, monkeypatch):
    """What `quantize` was called with, if it takes the real run's artifact for its own."""
    called = {}

    def quantize(model, method, *, output_dir, **arguments):
        called.update(arguments, model=model, method=method)
        shutil.copytree(done[0], output_dir)
        edit(output_dir, **called.pop("edit", {}))
        return QuantizedArtifact.from_pretrained(output_dir)

    monkeypatch.setattr(quantize_stages, "quantize", quantize)
    return called


# ---------------------------------------------------------------------- what it leaves
def test_model_report_and_card_are_in_the_folder(done, teacher):
    folder, said = done
    artifact = QuantizedArtifact.from_pretrained(folder)
    assert artifact.method == "onnx-int8"
    assert artifact.record["ignore"] == ["classifier"]
    assert artifact.load().config.num_labels == 3
    original, quantized = report(folder)["entries"]
    assert quantized["size_bytes"] == artifact.size_bytes < original["size_bytes"]
    assert quantized["method"] == used(folder)["name"] == "onnx-int8"
    assert used(folder)["options"]["ignore"] == ["classifier"]
    assert used(folder)["paper"] == ONNX.paper
    assert (report(folder)["dataset"], report(folder)["split"]) == ("rows", "test")
    card = (folder / "README.md").read_text()
    assert "made by quantization" in card
    assert "- quantization\n" in card
    assert "loaded in a fresh process without hf_shrink" in said


def test_every_option_reaches_the_function(requantized, teacher, rows, tmp_path):
    settings = {
        "method": "onnx-int8",
        "option": {"group-size": 64, "mode": "fast"},
        "ignore": ["classifier", "bert.pooler.dense"],
        "task": "single_label_classification",
        "calibration_dataset": str(rows),
        "calibration_size": 5,
        "text_column": "text",
        "label_column": "label",
        "max_length": 9,
        "seed": 3,
    }
    (tmp_path / "c.yaml").write_text(json.dumps({"model": "overridden", "output_dir": "overridden", **settings}))
    run(teacher, "--config", tmp_path / "c.yaml", "-o", tmp_path / "out", "--calibration-size", 4)
    assert len(requantized.pop("calibration_dataset")) == 8
    same = {name: settings[name] for name in ("method", "task", "text_column", "label_column", "max_length", "seed")}
    more = {"ignore": tuple(settings["ignore"]), "calibration_size": 4, "group_size": 64, "mode": "fast"}
    assert requantized == {"model": str(teacher), **same, **more}


def test_without_rows_nothing_is_compared(requantized, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_stages, "compare", None)
    run(teacher, "-o", tmp_path / "out")
    assert requantized == {"model": str(teacher), "method": "auto", "task": None, "ignore": ()}


def test_the_choice_of_auto_is_explained_on_screen_and_card(requantized, teacher, rows, tmp_path):
    requantized["edit"] = {"chosen_because": "it is the only one"}
    said = run(teacher, "--dataset", rows, "-o", tmp_path / "out")
    assert "`auto` took onnx-int8: it is the only one." in said
    assert "`auto` took onnx-int8: it is the only one." in (tmp_path / "out" / "README.md").read_text()


# ---------------------------------------------------------------------- an accuracy to keep
DROP = {"metric": "accuracy", "asked": 0.01, "drop": 0.25, "dataset": "rows", "rows": 8, "trials": [{}, {}]}


def test_a_drop_that_was_kept_is_on_the_card(requantized, teacher, rows, tmp_path):
    requantized["edit"] = {"max_drop": DROP | {"drop": 0.0, "met": True}}
    run(teacher, "--dataset", rows, "--max-drop", "0.01", "-o", tmp_path / "out")
    assert len(requantized["evaluation_dataset"]) == 8
    assert (requantized["max_drop"], requantized["metric"]) == (0.01, "accuracy")
    note = "Of 2 tried, this one (modules in float: 1) loses 0 by accuracy on 8 rows of rows, where 0.01 was allowed."
    assert note in (tmp_path / "out" / "README.md").read_text()


def test_a_drop_that_was_missed_leaves_the_best_and_is_an_error(requantized, teacher, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(QuantizedArtifact, "push_to_hub", None)
    requantized["edit"] = {"max_drop": DROP | {"met": False}}
    settings = ("--dataset", rows, "--max-drop", "0.01", "--push", "user/model", "-o", tmp_path / "out")
    with pytest.raises(ShrinkError, match="the best of 2 loses 0.25 by accuracy, where 0.01 was allowed.*Allow more"):
        run(teacher, *settings)
    assert report(tmp_path / "out")["rows"] == 8
    assert QuantizedArtifact.from_pretrained(tmp_path / "out").load() is not None


def test_a_measure_without_labels_is_no_metric_of_the_report(requantized, teacher, rows, tmp_path):
    requantized["edit"] = {"max_drop": DROP | {"met": True}}
    run(teacher, "--dataset", rows, "--max-drop", "0.01", "--metric", "kl", "-o", tmp_path / "out")
    assert requantized["metric"] == "kl"
    assert report(tmp_path / "out")["metric"] == "accuracy"


# ---------------------------------------------------------------------- sensitivity
@pytest.mark.filterwarnings("ignore:Calibration takes all 8 rows")
def test_the_sensitivity_is_written_as_figures_and_as_a_picture(requantized, teacher, rows, tmp_path):
    settings = (teacher, "--calibration-dataset", rows, "--sensitivity")
    said = run(*settings, tmp_path / "map.json", "-o", tmp_path / "1")
    run(*settings, tmp_path / "map.png", "-o", tmp_path / "2")
    found = SensitivityMap.from_json(tmp_path / "map.json")
    assert (found.method, found.rows) == ("onnx-int8", 8)
    assert f"the most sensitive of {len(found.modules)} modules is {found.modules[0]}" in said
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_map_that_is_there_is_what_the_search_goes_by(requantized, teacher, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_stages, "quantization_sensitivity", None)
    requantized["edit"] = {"max_drop": DROP | {"met": True}}
    (tmp_path / "map.json").write_text("{}")
    settings = (teacher, "--dataset", rows, "--sensitivity", tmp_path / "map.json", "-o", tmp_path / "out")
    run(*settings, "--max-drop", "0.01")
    assert requantized["sensitivity"] == tmp_path / "map.json"
    with pytest.raises(ShrinkError, match="`sensitivity` must be a new file, or with --max-drop a map in .json"):
        run(*settings[:-1], tmp_path / "other")


# ---------------------------------------------------------------------- sharing
def test_a_push_takes_report_and_card_along(requantized, hub, teacher, rows, tmp_path):
    try:
        said = run(teacher, "--dataset", rows, "--push", "user/quantized", "--private", "-o", tmp_path / "out")
        assert "user/quantized/commit/" in said
        assert HfApi().repo_info("user/quantized").private
        files = HfApi().list_repo_files("user/quantized")
        assert {"model.onnx", "quantization.json", "shrink_report.json", "README.md"} <= {*files}
    finally:
        HfApi().delete_repo("user/quantized", missing_ok=True)


# ---------------------------------------------------------------------- dry run
def test_a_dry_run_says_what_would_be_written_and_writes_nothing(teacher, tmp_path, monkeypatch, done):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    said = run(teacher, "--dry-run")
    serving = [name for name, m in QUANTIZERS.items() if "single_label_classification" in m.facts["tasks"]]
    assert all(name in said for name in serving)
    assert "auto takes " in said
    assert not list(tmp_path.iterdir())
    one = run(teacher, "--method", "onnx-int8", "--dry-run")
    assert [name for name in serving if name in one] == ["onnx-int8"]
    assert "auto" not in one


def test_a_dry_run_names_what_would_install_the_others(teacher, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(quantize_stages, "usable_methods", lambda task: [])
    assert 'pip install "hf_shrink[onnx]"' in run(teacher, "--method", "onnx-int8", "--dry-run")


def test_modules_in_float_are_predicted_larger(teacher):
    whole, ignoring = (
        run(teacher, "--method", "onnx-int8", "--dry-run", *more)
        for more in ((), ("--ignore", "bert.embeddings.word_embeddings"))
    )
    assert whole != ignoring


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "onnx-int9"), r"`method` must be auto or.*'onnx-int8'.*Did you mean 'onnx-int8'"),
        (("--method", "gguf"), "hf-shrink quantize MODEL --dry-run"),
        (("--max-drop", "0.01"), "`max_drop` must be left out without rows.*--dataset"),
        (("--metric", "accuracy"), "`metric` must be left out without rows"),
        (("--sensitivity", "map.json"), "`sensitivity` must be left out without rows"),
        (("--sensitivity", "map.txt", "--dataset", "x"), "`sensitivity` must be a file.*ending in one of"),
        (("--sensitivity", "nowhere/map.json", "--dataset", "x"), "`sensitivity` must be a file in a folder"),
        (("--private",), "`private` must be left out without --push"),
        (("--push", "not a name"), "`push` must be written as user/name"),
        (("--option", "group_size"), "`--option` must be NAME=VALUE"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, more, message):
    for name in ("load_rows", "load_model", "quantize"):
        monkeypatch.setattr(quantize_stages, name, None)
    with pytest.raises(ShrinkError, match=message):
        run("model", "-o", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("single_label_classification", ("--metric", "perplexity"), "`metric` must fit the task"),
        ("feature_extraction", (), "`dataset` must be left out for feature_extraction"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_work(tmp_path, rows, monkeypatch, task, more, message):
    monkeypatch.setattr(quantize_stages, "quantize", None)
    model = save_teacher(tmp_path / "model", task)
    with pytest.raises(ShrinkError, match=message):
        run(model, "--dataset", rows, *more, "-o", tmp_path / "out")


def test_a_folder_in_use_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ShrinkError, match="`output_dir` must be new or empty"):
        run("model", "-o", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("arguments", [("model",), ("model", "-o", "out", "--maxdrop", "1"), ("-o", "out")])
def test_wrong_usage_is_exit_code_2(arguments):
    assert CliRunner().invoke(app, ["quantize", *arguments]).exit_code == 2


def test_the_help_says_units_and_defaults():
    options = {option.name: option for option in get_command(app).commands["quantize"].params}
    assert "half a point of accuracy" in options["max_drop"].help
    assert options["calibration_size"].default == 256
    assert options["method"].default == "auto"
