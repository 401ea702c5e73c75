import pytest

from tests.evaluation.builders import classifier
from tests.models import export_onnx, tiny_tokenizer


@pytest.fixture(scope="session")
def graph_folder(tmp_path_factory):
    """`classifier()` in Optimum's ONNX layout; the export takes seconds, so do not write there."""
    return export_onnx(classifier(), tiny_tokenizer(), tmp_path_factory.mktemp("export") / "graph")


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch):
    """The tests assert nothing about time, and may run beside each other."""
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
