"""`hf-shrink migrate`."""

import torch
from transformers import AutoModelForMaskedLM
from typer.testing import CliRunner

from hf_shrink.cli.main import app
from hf_shrink.errors import ShrinkError
from tests.architectures.models import answer, tiny_model
from tests.pruning.test_pruned_heads import without_heads, write_checkpoint


def test_it_writes_what_every_transformers_loads(run, tmp_path):
    source = write_checkpoint(tiny_model("bert"), "bert", tmp_path / "4")
    printed = run("migrate", source, "--output-dir", tmp_path / "out").output
    assert f"{tmp_path / 'out'}: layout pad," in printed
    assert torch.allclose(
        answer(AutoModelForMaskedLM.from_pretrained(tmp_path / "out")),
        answer(without_heads(tiny_model("bert"))),
        atol=1e-6,
        rtol=0,
    )
    printed = run("migrate", source, "--output-dir", tmp_path / "remote", "--layout", "remote").output
    assert "layout remote," in printed


def test_what_is_refused_comes_before_any_work(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    done = CliRunner().invoke(app, ["migrate", "nowhere/at-all", "--output-dir", str(tmp_path)])
    assert isinstance(done.exception, ShrinkError)
    assert "`output_dir` must be new or empty" in str(done.exception)
    assert CliRunner().invoke(app, ["migrate", "checkpoint"]).exit_code == 2
