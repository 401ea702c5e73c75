import pytest

from tests.cli.distilling import save_rows, save_teacher, watch


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A single-label classifier on disk."""
    return save_teacher(tmp_path_factory.mktemp("teachers") / "teacher")


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Its rows, as train and test split."""
    return save_rows(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture
def run(monkeypatch):
    """The command line in this process, and the trainers that it made."""
    return watch(monkeypatch)


@pytest.fixture
def pruned(run, teacher, rows, tmp_path):
    """Run `prune` on the classifier, once; what it printed."""

    def call(*more):
        done = run("prune", "--model", teacher, "--dataset", rows, "--output-dir", tmp_path / "out", *more)
        return " ".join(done.output.split())

    return call
