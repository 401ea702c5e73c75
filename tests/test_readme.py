"""What the README and the model cards say is what the code and the committed reports say."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
from transformers import BertConfig
from typer.testing import CliRunner

import hf_shrink
from hf_shrink.cli.main import app
from hf_shrink.distillation.guidance import STANDS_IN
from hf_shrink.distillation.views import view_of
from hf_shrink.evaluation import ShrinkReport
from hf_shrink.hub import model_card
from hf_shrink.inputs import TASKS
from hf_shrink.pruning import PruningConfig
from hf_shrink.pruning.schedule import SCHEDULES
from hf_shrink.pruning.structures import parse_structure
from tools import readme
from tools.readme import DISTILLATION, PAGES, PRUNING, README, STRUCTURED, rendered

ROOT = Path(hf_shrink.__file__).parents[1]
CARDS = sorted((ROOT / "model_cards").glob("*/README.md"))


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
    assert configs or page in (DISTILLATION, STRUCTURED)


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


def test_there_are_cards():
    assert {"banking77-pruned", "quickstart-student"} <= {card.parent.name for card in CARDS}
