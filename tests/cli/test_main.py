import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hf_shrink.cli import main


def run(*arguments, cwd=None):
    code = f"import sys; sys.argv = ['hf-shrink', *{list(arguments)!r}]; from hf_shrink.cli.main import run; run()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=240)


@pytest.mark.parametrize("command", sorted(get_command(main.app).commands))
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(main.app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_env_names_the_versions():
    done = CliRunner().invoke(main.app, ["env"])
    assert done.exit_code == 0
    for name in ("torch", "transformers", "onnxruntime", "threads"):
        assert name in done.output


def test_refused_input_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    done = run("quickstart", "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: `output_dir`")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--num-hidden-layers", "9", "`num_hidden_layers` must be"),
        ("--model", "./nowhere", "`model` must be"),
        ("--dataset", "./nowhere", "`dataset` must be"),
    ],
)
def test_the_quickstart_refuses_before_any_work(tmp_path, option, value, message):
    done = run("quickstart", option, value, cwd=tmp_path)
    assert done.returncode == 1
    assert f"Error: {message}" in done.stderr
    assert "Fine-tune" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_failed_work_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def full_disk():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(main, "app", full_disk)
    monkeypatch.setattr(sys, "argv", ["hf-shrink", "quickstart"])
    with pytest.raises(SystemExit) as stop:
        main.run()
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["hf-shrink", "--debug", "quickstart"])
    with pytest.raises(OSError, match="No space left"):
        main.run()


def test_wrong_usage_is_exit_code_2():
    assert run("distill", "--teecher", "x").returncode == 2


def test_a_config_file_is_read_and_its_typing_errors_are_named(tmp_path):
    (tmp_path / "c.yaml").write_text("output_dirr: x\n")
    done = run("quickstart", "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "Did you mean 'output_dir'?" in done.stderr
    (tmp_path / "c.yaml").write_text("output-dir: out\n")
    (tmp_path / "out").write_text("a file")
    done = run("quickstart", "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "`output_dir` must be a folder" in done.stderr
