"""`hf-shrink score`."""

import numpy as np
import pytest
from datasets import load_dataset

from hf_shrink.cli import main
from hf_shrink.errors import ShrinkError
from tests.cli.distilling import save_rows
from tests.distillation.tasks import TEXTS


@pytest.fixture
def score(run, teacher, rows, tmp_path):
    """Run the command on the classifier, for one epoch."""

    def call(*more):
        settings = ("--output-dir", tmp_path / "out", "--num-train-epochs", 1)
        return run("score", "--model", teacher, "--dataset", rows, *settings, *more)

    return call


def test_it_writes_the_rows_with_their_scores_and_says_how_these_are_spread(score, tmp_path):
    said = score("--scores", "aum", "--scores", "entropy").stdout
    written = load_dataset(str(tmp_path / "out"), split="train")
    assert written.column_names == ["text", "label", "score_aum", "score_entropy"]
    assert written["text"] == TEXTS
    assert written.features["label"].names == ["0", "1", "2"]
    lines = {line.split()[1]: line.split() for line in said.splitlines() if "aum" in line or "entropy" in line}
    assert [lines[name][3] for name in ("aum", "entropy")] == ["low", "high"]
    assert f"{min(written['score_aum']):.3g}" in lines["aum"]
    assert f"{np.median(written['score_entropy']):.3g}" in lines["entropy"]
    assert f"8 rows in {tmp_path / 'out' / 'train.parquet'}" in " ".join(said.split("\n"))


def test_without_names_it_computes_the_usual_ones(score, tmp_path):
    score("--split", "test[:4]")
    written = load_dataset("parquet", data_files=str(tmp_path / "out" / "test.parquet"), split="train")
    assert written.column_names == ["text", "label", "score_aum", "score_el2n", "score_forgetting"]
    assert len(written) == 4


def test_settings_come_from_a_file_and_flags_override_them(score, tmp_path):
    config = tmp_path / "score.yaml"
    config.write_text("scores: [el2n, variability]\nseed: 3\nbatch-size: 2\n")
    score("--config", config, "--scores", "el2n")
    assert load_dataset(str(tmp_path / "out"), split="train").column_names == ["text", "label", "score_el2n"]


def test_a_folder_that_holds_something_is_refused_before_any_work(score, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ShrinkError, match="`output_dir` must be new or empty"):
        score()


def test_an_unknown_score_leaves_nothing_behind(score, tmp_path):
    with pytest.raises(ShrinkError, match="`scores` must be one of .* Did you mean 'aum'"):
        score("--scores", "amu")
    assert not (tmp_path / "out").exists()


def test_rows_without_labels_are_counted(run, teacher, tmp_path):
    rows = save_rows(tmp_path / "rows", text=TEXTS, label=[0, 1, -100, 2, 0, -100, 1, 2])
    settings = ("--output-dir", tmp_path / "out", "--num-train-epochs", 1, "--scores", "aum")
    said = run("score", "--model", teacher, "--dataset", rows, *settings).stdout
    assert next(line for line in said.splitlines() if " aum " in line).split()[-2] == "2"


def test_it_is_a_command():
    assert "score" in {command.name for command in main.app.registered_commands}
