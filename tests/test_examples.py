"""The example scripts run as the notebook says, and few lines make an ordinary one distil, or prune."""

import difflib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hf_shrink.pruning import sparsity_report
from tests.models import tiny_bert_classifier, tiny_tokenizer

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = nbformat.read(ROOT / "notebooks" / "01_distillation.ipynb", as_version=4)
CELLS = {cell.id: cell.source for cell in NOTEBOOK.cells}
DATA = "hf_shrink/data/banking77"


def difference(script):
    ours = [(EXAMPLES / name).read_text().splitlines() for name in ("finetune.py", script)]
    return list(difflib.unified_diff(*ours, "finetune.py", script, n=1, lineterm=""))


def command():
    """Flag to value, as the notebook writes them."""
    words = shlex.split(CELLS["command"].removeprefix("```bash\n").removesuffix("\n```").replace("\\\n", " "))
    assert words[:2] == ["python", "examples/distill.py"]
    return dict(zip(words[2::2], words[3::2], strict=True))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a student and a teacher."""
    folders = [tmp_path_factory.mktemp(name) for name in ("student", "teacher")]
    for seed, folder in enumerate(folders):
        tiny_bert_classifier(77, seed=seed).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return [str(folder) for folder in folders]


def run(script, flags, tmp_path):
    flags = {**flags, "--output_dir": str(tmp_path), "--max_steps": "2"}
    words = [word for pair in flags.items() for word in pair]
    done = subprocess.run([sys.executable, EXAMPLES / script, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert (tmp_path / "model.safetensors").exists()
    return json.loads((tmp_path / "eval_results.json").read_text())


def test_the_notebook_shows_how_the_scripts_differ():
    assert CELLS["diff"] == "\n".join(["```diff", *difference("distill.py"), "```"])


def test_at_most_five_lines_make_it_distil():
    added = [line for line in difference("distill.py")[2:] if line.startswith("+")]
    removed = [line for line in difference("distill.py")[2:] if line.startswith("-")]
    assert 0 < len(added) <= 5
    assert 0 < len(removed) <= 5


def test_two_lines_make_it_prune():
    changed = [line[1:].strip() for line in difference("prune.py")[2:] if line[0] in "+-"]
    assert changed == [
        "from hf_shrink import PruningCallback, PruningConfig",
        "callbacks=[PruningCallback(PruningConfig(final_sparsity=0.8, end_step=0.6))],",
    ]


@pytest.mark.slow
def test_the_ordinary_script_runs(models, tmp_path):
    metrics = run("finetune.py", {"--model_name_or_path": models[0], "--dataset_name": DATA}, tmp_path)
    assert 0 <= metrics["eval_accuracy"] <= 1
    assert "eval_agreement" not in metrics


@pytest.mark.slow
def test_the_distilling_script_runs_as_the_notebook_calls_it(models, tmp_path):
    own = dict(zip(("--model_name_or_path", "--teacher_model_name_or_path"), models, strict=True))
    assert set(own) < set(command())
    metrics = run("distill.py", {**command(), **own}, tmp_path)
    assert metrics["eval_kd_loss"] > 0
    assert 0 <= metrics["eval_agreement"] <= 1


@pytest.mark.slow
def test_the_pruning_script_runs_and_leaves_zeros(models, tmp_path):
    run("prune.py", {"--model_name_or_path": models[0], "--dataset_name": DATA}, tmp_path)
    count = sparsity_report(tmp_path).prunable
    assert count.zeros == round(0.8 * count.total)
