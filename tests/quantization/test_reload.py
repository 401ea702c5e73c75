import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from hf_shrink.quantization import reload
from tests.quantization.texts import inputs, logits

CLASS = "AutoModelForSequenceClassification"
with_optimum = pytest.mark.skipif(find_spec("optimum.onnxruntime") is None, reason="Optimum runs no ONNX here")


@pytest.fixture
def ask(artifact, tmp_path):
    """Answers of an artifact, as the script gives them."""

    def ask(folder=artifact.path):
        rows = {f"0/{name}": values.numpy() for name, values in inputs().items()}
        np.savez(tmp_path / "rows.npz", **rows)
        reload.answer_rows(str(folder), str(tmp_path / "rows.npz"), str(tmp_path / "answers.npz"), CLASS)
        return np.load(tmp_path / "answers.npz")["0/logits"]

    return ask


def test_answers_are_the_runtimes(artifact, ask):
    np.testing.assert_allclose(ask(), logits(artifact.load()).numpy(), atol=1e-5)


@with_optimum
@pytest.mark.parametrize("shift", [1e-3, float("nan")])
def test_the_class_of_optimum_must_answer_alike(ask, monkeypatch, shift):
    import optimum.onnxruntime

    answer = optimum.onnxruntime.ORTModelForSequenceClassification.forward

    def shifted(self, *given, **named):
        outputs = answer(self, *given, **named)
        outputs["logits"] = outputs.logits + shift * outputs.logits.abs().max()
        return outputs

    monkeypatch.setattr(optimum.onnxruntime.ORTModelForSequenceClassification, "forward", shifted)
    with pytest.raises(
        ValueError, match=r"Optimum's class answers otherwise than onnxruntime: \['logits'\] differ by"
    ):
        ask()


@with_optimum
def test_a_folder_that_optimum_does_not_find_is_an_error(artifact, ask, tmp_path):
    folder = tmp_path / "named otherwise"
    shutil.copytree(artifact.path, folder)
    (folder / "config.json").unlink()  # onnxruntime alone would not miss it
    with pytest.raises((OSError, ValueError)):
        ask(folder)


def test_without_optimum_onnxruntime_is_asked_alone(artifact, ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    assert torch.from_numpy(ask()).allclose(logits(artifact.load()), atol=1e-5)
