import importlib.metadata

from hf_shrink.evaluation.environment import cpu_name, find_environment, usable_cores


def test_versions_are_the_installed_ones():
    environment = find_environment(threads=3)
    assert environment.torch == importlib.metadata.version("torch")
    assert environment.transformers == importlib.metadata.version("transformers")
    assert environment.threads == 3
    assert environment.cores == usable_cores() >= 1
    assert environment.cpu == cpu_name() != ""


def test_what_is_not_installed_is_none(monkeypatch):
    def missing(library):
        raise importlib.metadata.PackageNotFoundError(library)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert find_environment().onnxruntime is None
