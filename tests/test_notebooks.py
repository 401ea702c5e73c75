"""Every notebook runs offline, is kept with its outputs, and leads to this project's own address."""

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
SLUG = REPOSITORY.removeprefix("https://github.com/")
COLAB = f"https://colab.research.google.com/github/{SLUG}/blob/main/notebooks"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\\\")  # of whatever machine it ran on

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def kinds(cell):
    return {kind for output in cell.outputs for kind in output.get("data", [output.get("name")])}


OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
PUSHING = (
    "03_quantization.ipynb",
    "04_dataset_distillation.ipynb",
)  # to the loopback Hub, the only one that the tests' environment knows


@pytest.mark.slow
@each_notebook
def test_it_runs_offline_and_shows_what_it_is_kept_with(path, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "run-notebook", path, "--output", tmp_path / "run.ipynb"],
        env=os.environ | {"FAST": "1"} | ({"PUSH": "1"} if path.name in PUSHING else OFFLINE),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    for kept, run in zip(code_cells(read(path)), code_cells(read(tmp_path / "run.ipynb")), strict=True):
        assert kinds(kept) == kinds(run), f"{kept.id}: keep the outputs with tools/run-notebook {path.name}"


@each_notebook
def test_the_first_cell_says_what_it_is_for_and_opens_it_in_colab(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    for word in ("**What.**", "**Why.**", "**When not.**", f"({COLAB}/{path.name})"):
        assert word in first.source


@each_notebook
def test_every_colab_address_is_its_own(path):
    addresses = re.findall(r"https://colab\.research\.google\.com/github/[^\s)\"']+", path.read_text())
    assert set(addresses) == {f"{COLAB}/{path.name}"}


@each_notebook
def test_it_installs_this_project_on_colab_alone(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "pip install" in cell.source]
    assert 'if "google.colab" in sys.modules:\n    %pip install' in cell.source
    assert re.search(rf'"hf_shrink(\[\w+(,\w+)*\])? @ git\+{re.escape(REPOSITORY)}"', cell.source)


@each_notebook
def test_its_outputs_are_kept_whole_and_without_traces_of_a_machine(path):
    kept = outputs(read(path))
    assert not [output for output in kept if output.output_type == "error"]
    assert [output for output in kept if "image/png" in output.get("data", {})]
    for output in kept:
        text = json.dumps({**output, "data": {k: v for k, v in output.get("data", {}).items() if k != "image/png"}})
        assert not ABSOLUTE_PATH.findall(text), text[:2000]


@pytest.mark.parametrize("text", ["saved to /home/me/out", '"/tmp/x/y.json"', json.dumps("C:\\Users")])
def test_a_path_would_be_seen(text):
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("text", ["p50 / p95", "<td>1</td>", "notebook-out/student/", "https://huggingface.co/a/b"])
def test_what_is_no_path_is_not_taken_for_one(text):
    assert not ABSOLUTE_PATH.search(text)


@each_notebook
def test_it_runs_no_code_of_others(path):
    assert "trust_remote_code" not in path.read_text()


def settings_of(name, monkeypatch):
    monkeypatch.delenv("FAST", raising=False)
    settings = {}
    exec(cells_of(name)["settings"].source, settings)
    return settings


def cells_of(name):
    return {cell.id: cell for cell in read(ROOT / "notebooks" / name).cells}


def test_the_quickstart_has_the_settings_of_the_command(monkeypatch):
    from hf_shrink.cli import quickstart_stages as stages
    from hf_shrink.cli.quickstart_command import quickstart

    settings = settings_of("00_quickstart.ipynb", monkeypatch)
    for name in ("TEACHER", "STUDENT", "DISTILLATION", "MAX_LENGTH"):
        assert settings[name] == getattr(stages, name), name
    options = inspect.signature(quickstart).parameters
    for name in ("num_hidden_layers", "teacher_epochs", "student_epochs", "seed"):
        assert settings[name.upper()] == options[name].default, name


@pytest.mark.parametrize("name", ["01_distillation.ipynb", "02_pruning.ipynb"])
def test_a_teacher_of_the_quickstart_is_one_that_it_would_have_made_itself(name, monkeypatch):
    first, second = (settings_of(each, monkeypatch) for each in ("00_quickstart.ipynb", name))
    for name in ("OUT", "TEACHER", "TEACHER_EPOCHS", "MAX_LENGTH", "SEED"):
        assert first[name] == second[name], name


def test_the_quantized_student_is_the_one_of_the_quickstart(monkeypatch):
    first, second = (settings_of(name, monkeypatch) for name in ("00_quickstart.ipynb", "03_quantization.ipynb"))
    for name in ("OUT", "STUDENT", "STUDENT_EPOCHS", "NUM_HIDDEN_LAYERS", "MAX_LENGTH", "SEED"):
        assert first[name] == second[name], name


def test_the_distillation_was_run_with_todays_preset_and_caches_what_it_compares():
    from hf_shrink.distillation.presets import PRESETS

    cells, preset = cells_of("01_distillation.ipynb"), PRESETS["classification"]
    printed = next(output.text for output in cells["preset"].outputs if output.get("name") == "stdout")
    assert printed.splitlines()[0] == str(dict(preset)), "run it again: tools/run-notebook"
    assert f'hidden_layers=[-1], pooling="{preset["pooling"]}"' in cells["cache"].source
    assert preset["layer_map"] == "last"


@pytest.mark.parametrize("name", ["01_distillation.ipynb", "02_pruning.ipynb"])
def test_it_says_no_number_that_its_table_does_not_show(name):
    cells = cells_of(name)
    table = "".join(cells["compare"].outputs[0].data["text/markdown"])
    said = re.findall(r"\d+\.\d", cells["reading"].source)
    assert said or name != "01_distillation.ipynb"
    assert not set(said) - set(re.findall(r"\d+\.\d", table))


def test_the_pruned_models_came_back_as_they_were(monkeypatch):
    cells, settings = cells_of("02_pruning.ipynb"), settings_of("02_pruning.ipynb", monkeypatch)
    printed = {name: cells[name].outputs[0].text for name in ("report", "reload", "compact")}
    assert re.findall("True|False", printed["reload"]) == ["True", "True"]
    assert "rounding: True" in printed["compact"]
    assert f"prunable    {100 * settings['WEIGHTS']['final_sparsity']:.1f} %" in printed["report"]


def test_the_small_dataset_came_back_as_it_was_and_is_as_large_as_asked(monkeypatch):
    cells, settings = (
        cells_of("04_dataset_distillation.ipynb"),
        settings_of("04_dataset_distillation.ipynb", monkeypatch),
    )
    printed = {name: cells[name].outputs[0].text for name in ("data", "distill", "push")}
    assert re.findall("True|False", printed["push"]) == ["True", "True", "True"]
    given = int(re.search(r"'train': (\d+)", printed["data"])[1])
    assert int(printed["distill"].split()[0]) == round(settings["BUDGET"] * given)
    assert f"{settings['INTENTS']} intents" in printed["data"]  # a whole run, not a fast one
