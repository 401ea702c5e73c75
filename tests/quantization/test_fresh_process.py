import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.graph_feed import GraphInput, complete_feed
from hf_shrink.quantization import fresh_process, reload
from hf_shrink.quantization.fresh_process import fresh_answers
from tests.quantization.texts import inputs, logits

ROWS = [{"input_ids": torch.tensor([[2, 5, 3]])}]


def answer_with(monkeypatch, tmp_path, body):
    script = tmp_path / "reload.py"
    script.write_text(f"import os, signal, sys\nimport numpy as np\n{body}\n")
    monkeypatch.setattr(fresh_process.reload, "__file__", str(script))
    return fresh_answers(tmp_path, ROWS, "causal_lm", "openvino-int8")


def test_rows_go_there_and_answers_come_back(monkeypatch, tmp_path):
    body = "np.savez(sys.argv[3], **{'0/logits': 2.0 * np.load(sys.argv[2])['0/input_ids']})"
    (answer,) = answer_with(monkeypatch, tmp_path, body)
    assert answer["logits"].tolist() == [[4.0, 10.0, 6.0]]


def test_a_crash_is_an_error_and_not_an_end(monkeypatch, tmp_path):
    with pytest.raises(ShrinkError, match="`model` must load in a fresh process after openvino-int8, .* by SIGFPE"):
        answer_with(monkeypatch, tmp_path, f"os.kill(os.getpid(), {int(signal.SIGFPE)})")
    assert os.getpid()  # and this process lives


def test_a_failure_says_why(monkeypatch, tmp_path):
    with pytest.raises(ShrinkError, match="failed: ValueError: no such format"):
        answer_with(monkeypatch, tmp_path, "raise ValueError('no such format')")


def test_positions_are_counted_over_padding_there_as_here():
    """A static method proves a language model on padded calibration rows."""
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    given = {"input_ids": torch.ones_like(mask), "attention_mask": mask}
    declared = {name: GraphInput(np.int64, (None, None)) for name in (*given, "position_ids")}
    here = complete_feed(given, declared)["position_ids"]
    there = reload._feed(declared, {name: values.numpy() for name, values in given.items()})["position_ids"]
    np.testing.assert_array_equal(there, here)


def test_the_script_runs_without_us(artifact, tmp_path):
    row = {**inputs(), "token_type_ids": torch.zeros_like(inputs()["input_ids"])}
    np.savez(tmp_path / "rows.npz", **{f"0/{name}": values.numpy() for name, values in row.items()})
    arguments = [
        reload.__file__,
        artifact.path,
        tmp_path / "rows.npz",
        tmp_path / "answers.npz",
        "AutoModelForSequenceClassification",
    ]
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "try:\n    import hf_shrink\nexcept ModuleNotFoundError:\n    print('absent', sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.stdout.startswith("absent"), done.stderr
    if find_spec("optimum.onnxruntime") is None:  # whose classes are asked as well, where they are there
        assert "'transformers'" not in done.stdout  # a graph needs its runtime alone
    answers = np.load(tmp_path / "answers.npz")["0/logits"]
    np.testing.assert_allclose(answers, logits(artifact.load()).numpy(), atol=1e-5)
