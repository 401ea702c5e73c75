"""What the README and the model cards say is what the code and the committed reports say."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from transformers import BertConfig
from typer.testing import CliRunner

import hf_shrink
from hf_shrink.cli.main import app
from hf_shrink.dataset_distillation import DatasetReport
from hf_shrink.distillation.guidance import STANDS_IN
from hf_shrink.distillation.views import view_of
from hf_shrink.evaluation import ShrinkReport
from hf_shrink.hub import model_card
from hf_shrink.hub.dataset_folder import folder_card
from hf_shrink.inputs import TASKS
from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.schedule import SCHEDULES
from hf_shrink.pruning.structures import parse_structure
from tools import readme
from tools.readme import DATASETS, DISTILLATION, PAGES, PRUNING, QUANTIZATION, README, STRUCTURED, rendered

ROOT = Path(hf_shrink.__file__).parents[1]
CARDS = sorted(path.with_name("README.md") for path in (ROOT / "model_cards").glob("*/shrink_report.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_made_tables_are_up_to_date(page):
    assert page.read_text() == rendered(page.read_text()), "Run: python tools/readme.py"


def test_every_link_into_the_project_leads_somewhere():
    links = {page: re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()) for page in PAGES}
    assert links[README]
    assert not [link for page, found in links.items() for link in found if not (page.parent / link).exists()]


def test_every_schedule_is_in_the_docs():
    rows = re.findall(r"^\| `(\w+)` \| (?:rises|takes|is) ", PRUNING.read_text(), flags=re.M)
    assert sorted(rows) == sorted(SCHEDULES)


def test_every_structure_is_in_the_docs_as_users_write_it():
    rows = re.findall(r'^\| `"(.+?)"`', readme.structures(), flags=re.M)
    assert {parse_structure(written)[0].name for written in rows} == {*readme.STRUCTURES}


def calls_and_imports(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    assert nodes
    return [n for n in nodes if isinstance(n, ast.Call)], [n for n in nodes if isinstance(n, ast.ImportFrom)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_the_examples_import_and_set_is_there(page):
    calls, imports = calls_and_imports(page)
    for node in imports:
        module = importlib.import_module(node.module)
        assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
    configs = [c for c in calls if ast.unparse(c.func) == "PruningConfig"]
    assert {k.arg for config in configs for k in config.keywords} <= set(vars(PruningConfig()))
    assert configs or page in (DISTILLATION, STRUCTURED, QUANTIZATION, DATASETS)


def test_pruning_is_shown_beside_the_dense_model(tmp_path, monkeypatch):
    run = {"validation": 0.8, "zeros": 0.8}
    arms = {"movement": {"0": run | {"test": 0.8}, "1": run | {"test": 0.9}}, "dense, distilled": {"0": {"test": 1.0}}}
    found = {"dense": {"trec6": {"validation": 0.9, "test": 0.95}}, "cells": {"trec6, 80 %": arms}}
    (tmp_path / "pruning.json").write_text(json.dumps(found))
    monkeypatch.setattr(readme, "PRUNED", tmp_path / "pruning.json")
    assert readme.pruning().splitlines()[2:] == [
        "| trec6, 80 % | the dense model that all start from | 95.0 | 100.0 % |",
        "| trec6, 80 % | movement | 85.0 ± 5.00 (2 seeds) | 89.5 % |",
        "| trec6, 80 % | dense, trained on, distilled | 100.0 (1 seed) | 105.3 % |",
    ]


QUALITY = {"value": 0.925, "agreement": 1.0, "kl": 0.0}
MEASURED = {
    "banking77": {
        "rows": 3080,
        "metric": "accuracy",
        "threads": 1,
        "models": {
            readme.FLOAT: {"bytes": 91e6, "ms": {"1x32": 6.0, "32x128": 300.0}, "seconds": None, **QUALITY},
            "onnx-int8": {
                "bytes": 23.1e6,
                "ms": {"1x32": 2.0, "32x128": 100.0},
                "seconds": 31.2,
                **QUALITY,
                "kl": 0.0123,
            },
            "PyTorch bf16": {"bytes": None, "ms": {"1x32": 12.0}},
        },
    },
    "stories260k": {
        "rows": 200,
        "metric": "perplexity",
        "models": {readme.FLOAT: {"bytes": 1e6, "value": 3.456}, "onnx-int8": {"bytes": 3e5, "value": 3.5}},
    },
    "bert-base": {"rows": None, "metric": None, "models": {readme.FLOAT: {"bytes": 4e8, "ms": {"1": 2.0, "32": 8.0}}}},
}


def test_quantized_models_are_shown_beside_the_float_one(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "QUANTIZED", tmp_path / "quantization.json")
    readme.QUANTIZED.write_text(json.dumps(MEASURED))
    first, second, third = readme.quantization().split("\n\n")
    assert first == readme.quantization_minilm()
    assert first.splitlines() == [
        "| banking77 | size | accuracy, % (3,080 rows) | agreement, % | KL | made in "
        "| faster, 1 × 32 | faster, 32 × 128 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| PyTorch fp32 | 91.0 MB | 92.5 | 100.0 | 0 | – | 1.00× | 1.00× |",
        "| `onnx-int8` | 23.1 MB | 92.5 | 100.0 | 0.012 | 31 s | 3.00× | 3.00× |",
        "| PyTorch bf16 | – | – | – | – | – | 0.50× | – |",
    ]
    assert "| stories260k | size | perplexity (200 rows) |" in second
    assert "| `onnx-int8` | 0.3 MB | 3.50 |" in second
    assert third.splitlines()[0] == "| bert-base | size | made in | faster, 1 picture | faster, 32 pictures |"


def test_the_docs_name_no_quantizer_that_is_not_there():
    text = re.sub(r"https?://\S+", "", QUANTIZATION.read_text())
    named = set(re.findall(r"\b(?:onnx|openvino|optimum|bnb|torchao|autoround)-\w+(?:-\w+)*", text))
    assert named - {"optimum-onnx", "optimum-intel"} <= {*readme.QUANTIZERS}


def test_every_task_is_in_the_docs_with_its_own_loss():
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", DISTILLATION.read_text(), flags=re.M)
    config = BertConfig(num_labels=3)
    views = {task: view_of(task, config, pooling="mean", hide_padding=True) for task in TASKS}
    assert dict(rows) == {task: STANDS_IN.get(view.outputs, "forward_kl") for task, view in views.items()}


def test_the_commands_of_the_readme_exist():
    commands = set(re.findall(r"`hf-shrink ([a-z-]+)`", README.read_text()))
    assert commands >= {"quickstart", "distill", "compare", "push", "env"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.parent.name)
def test_the_card_is_what_its_report_renders_to(card):
    assert card.read_text() == model_card(ShrinkReport.from_json(card.parent / "shrink_report.json"))


TWENTIETH = ROOT / "model_cards" / "banking77-twentieth"


def report_of_the_twentieth():
    return DatasetReport.from_dict(json.loads((TWENTIETH / "dataset_report.json").read_text()))


def test_the_dataset_card_is_what_its_rows_and_its_report_render_to():
    rows = Dataset.from_parquet(str(TWENTIETH / "train.parquet"))
    rows.info.description = report_of_the_twentieth().description()
    card = folder_card(rows, TWENTIETH / "train.parquet", source="PolyAI/banking77", license="cc-by-4.0")
    assert (TWENTIETH / "README.md").read_text() == card


def test_the_dataset_of_the_cards_loads_with_its_report_and_holds_rows_of_banking77():
    rows = load_dataset(str(TWENTIETH), split="train")
    assert DatasetReport.of(rows) == report_of_the_twentieth()
    assert len(rows) == report_of_the_twentieth().rows
    source = load_dataset(str(ROOT / "hf_shrink" / "data" / "banking77"), split="train").select(rows["source_index"])
    assert rows.select_columns(["text", "label"]).to_dict() == source.to_dict()


def test_there_are_cards():
    assert {"banking77-pruned", "quickstart-student"} <= {card.parent.name for card in CARDS}
