"""The two version columns: what each installs is pinned, and is there, or its tests would be skipped in silence."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import transformers
from packaging.requirements import Requirement

from hf_shrink.quantization import QUANTIZERS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ONLY_IN = {"current": {"openvino", "nncf", "torchao"}, "optimum": {"optimum.onnxruntime"}}  # modules
HERE, ELSEWHERE = ("current", "optimum") if transformers.__version__.startswith("5") else ("optimum", "current")


def installed(column):
    """The extras that the build makes the column with."""
    steps = (ROOT / "Makefile").read_text() + (ROOT / ".ci" / "run").read_text()
    return re.search(rf"tools/make-venv \S+ constraints/{column}\.txt (\S+)", steps).group(1).split(",")


def requirements(extras):
    for extra in extras:
        for line in EXTRAS[extra]:
            requirement = Requirement(line)
            if requirement.name == PROJECT["name"]:
                yield from requirements(sorted(requirement.extras))
            else:
                yield requirement


def pins(column):
    lines = (ROOT / "constraints" / f"{column}.txt").read_text().splitlines()[1:]
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


@pytest.mark.parametrize("column", ["current", "optimum"])
def test_all_that_a_column_installs_is_pinned_as_the_project_asks(column):
    wanted = [*map(Requirement, PROJECT["dependencies"]), *requirements(installed(column))]
    assert {"torch", "pytest"} < {requirement.name for requirement in wanted}
    pinned = pins(column)
    for requirement in wanted:
        assert pinned.get(canonical(requirement.name), "nothing") in requirement.specifier, requirement


def test_each_extra_is_installed_in_a_column():
    made = {extra for column in ("current", "optimum") for extra in installed(column)}
    nested = {name for extra in made for line in EXTRAS[extra] for name in Requirement(line).extras}
    assert made | nested == set(EXTRAS)


@pytest.mark.parametrize("method", list(QUANTIZERS))
def test_what_a_quantizer_needs_is_here_unless_it_belongs_to_the_other_column(method):
    missing = {library for library in QUANTIZERS[method].facts["libraries"] if not there(library)}
    assert missing <= ONLY_IN[ELSEWHERE], f"install this column's extras: {installed(HERE)}"


@pytest.mark.parametrize("library", sorted(ONLY_IN[HERE]))
def test_the_columns_own_libraries_are_here(library):
    assert there(library), f"install this column's extras: {installed(HERE)}"


def there(library):
    if "." in library and not there(library.rpartition(".")[0]):
        return False
    return find_spec(library) is not None
