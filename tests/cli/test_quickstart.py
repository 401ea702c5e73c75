"""The whole walk on the real model and real rows, few of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import hf_shrink
from hf_shrink.inputs import load_model
from hf_shrink.quantization import QuantizedArtifact
from tests.hub.cards import front_matter, validate_card
from tests.stock import CLASSIFY, run_stock

pytestmark = pytest.mark.slow

ROOT = Path(hf_shrink.__file__).parents[1]
SMALL = "--train-rows 200 --test-rows 120 --teacher-epochs 1 --student-epochs 1 --baseline".split()
STAGES = {"teacher", "student", "student-int8", "student-labels-only"}
TEXT = "Where is my new card?"


def quickstart(folder, *more):
    code = "import sys; from hf_shrink.cli.main import run; run()"
    command = [sys.executable, "-c", code, "quickstart", *SMALL, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return folder / "quickstart-out", quickstart(folder)


def test_it_leaves_models_report_picture_and_cards(finished):
    out, done = finished
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in out.iterdir()} == {*STAGES, "shrink_report.json", "pareto.png"}
    for name in STAGES:
        assert (out / name / "README.md").is_file()
        assert (out / name / "shrink_report.json").is_file()
    for title in ("Retention", "Size", "Parameters", "MACs", "Latency p50", "Faster"):
        assert title in done.stdout


def test_the_report_is_of_this_run(finished):
    out, _ = finished
    report = json.loads((out / "shrink_report.json").read_text())
    entries = {entry["name"]: entry for entry in report["entries"]}
    assert set(entries) == STAGES
    assert report["rows"] == 120
    for name, entry in entries.items():
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert entry["latency"]["runs"] >= 50
    assert entries["student"]["macs"] < 0.5 * entries["teacher"]["macs"]
    assert entries["student-int8"]["size_bytes"] < 0.3 * entries["student"]["size_bytes"]


def test_the_student_loads_where_hf_shrink_is_not(finished, tmp_path):
    folder = finished[0] / "student"
    answer = run_stock(CLASSIFY, str(folder), TEXT, cwd=tmp_path)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")
    np.testing.assert_allclose(answer, load_model(folder)(**inputs).logits.detach(), atol=1e-5)


def test_int8_is_near_its_float_source(finished):
    inputs = AutoTokenizer.from_pretrained(finished[0] / "student")(TEXT, return_tensors="pt")
    exact = load_model(finished[0] / "student")(**inputs).logits.detach()
    small = QuantizedArtifact.from_pretrained(finished[0] / "student-int8").load()(**inputs).logits
    assert (small - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_card_names_origin_and_data_and_no_place_of_this_machine(finished):
    out, _ = finished
    text = (out / "student" / "README.md").read_text()
    assert validate_card(text, "model") == ([], [])
    data, _ = front_matter(text)
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["license"] == "apache-2.0"
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "PolyAI/banking77"
    assert str(out) not in text


def test_a_second_run_reuses_every_stage_and_another_option_only_what_it_does_not_touch(finished):
    out, _ = finished
    before = {name: (out / name / "stage.json").stat().st_mtime_ns for name in STAGES}
    again = quickstart(out.parent, "--student-epochs", "0.5")
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stderr.count("finished before, reused") == 1
    changed = {name for name in STAGES if (out / name / "stage.json").stat().st_mtime_ns != before[name]}
    assert changed == STAGES - {"teacher"}
    assert quickstart(out.parent, "--student-epochs", "0.5").stderr.count("finished before, reused") == len(STAGES)


def test_the_example_of_the_readme_runs(finished, tmp_path):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]  # the others are fragments
    code = code.replace("quickstart-out", str(finished[0])).replace("hf_shrink/data", str(ROOT / "hf_shrink" / "data"))
    code = re.sub(r'data\["(train|test)"\]', r'data["\1"].select(range(32))', code)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "eval_agreement" in done.stdout
    assert (tmp_path / "student" / "model.safetensors").is_file()
