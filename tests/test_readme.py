"""What the README and the model cards say is what the code and the committed reports say."""

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
from tools.readme import DISTILLATION, PAGES, README, rendered

ROOT = Path(hf_shrink.__file__).parents[1]
CARDS = sorted((ROOT / "model_cards").glob("*/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_made_tables_are_up_to_date(page):
    assert page.read_text() == rendered(page.read_text()), "Run: python tools/readme.py"


def test_every_link_into_the_project_leads_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


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
    assert "quickstart-student" in {card.parent.name for card in CARDS}
