import importlib.metadata

import pytest
from typer.testing import CliRunner

from hf_shrink.cli import env_command, main
from hf_shrink.cli.env_command import torchvision_conflict


@pytest.fixture
def packages(monkeypatch):
    """What is installed, and what torchvision asks for."""

    def packages(versions, wanted):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)

    return packages


@pytest.mark.parametrize("torch", ["2.13.0", "2.13.0+cpu"])
def test_a_torchvision_for_another_torch_is_named_with_what_mends_it(packages, torch):
    packages({"torch": torch, "torchvision": "0.27.0"}, ["numpy", "torch==2.12.0", 'scipy; extra == "scipy"'])
    found = torchvision_conflict()
    assert f"torchvision 0.27.0 was built for torch==2.12.0, and torch {torch} is here" in found
    assert "OVModel*" in found
    assert found.endswith("pip uninstall torchvision")
    done = CliRunner().invoke(main.app, ["env"])
    assert "pip uninstall torchvision" in done.output


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, ["torch==2.13.0"]),  # a build of the same version
        ({"torch": "2.13.0"}, None),
        ({"torch": "2.13.0", "torchvision": "0.28.0"}, None),  # asks for nothing
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(packages, versions, wanted):
    packages(versions, wanted)
    assert torchvision_conflict() is None
    assert "torchvision" not in CliRunner().invoke(main.app, ["env"]).output


def test_every_backend_is_listed_with_what_installs_it(packages):
    packages({"torch": "2.13.0", "nncf": "3.4.0"}, None)
    lines = CliRunner().invoke(main.app, ["env"]).output.splitlines()
    said = {line.split()[0]: line for line in lines if line}
    assert said["nncf"].split() == ["nncf", "3.4.0"]
    for name, extra in env_command.BACKENDS.items():
        assert name == "nncf" or f'pip install "hf_shrink[{extra}]"' in said[name]
