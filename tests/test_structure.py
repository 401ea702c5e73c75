"""The house's own rules: who imports whom, what `import hf_shrink` loads, what public names are called."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hf_shrink

ROOT = Path(hf_shrink.__file__).parents[1]
PACKAGE = ROOT / "hf_shrink"
FLOORS = [  # lowest first; a module imports from its own room and from lower floors only
    {"errors", "lazy"},
    {"registry"},
    {"versions"},
    {"architectures"},
    {"inputs"},
    {"evaluation"},
    {"hub"},
    {"distillation", "pruning", "quantization", "dataset_distillation"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "hf_shrink"


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"hf_shrink.{alias.name}" for alias in node.names] if node.module == "hf_shrink" else [node.module]
            )


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_lead_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        if module.startswith("hf_shrink."):
            other = room(module)
            assert other == own or FLOOR[other] < FLOOR[own], f"{own} may not import {module}"


def test_the_package_loads_no_heavy_library():
    code = (
        "import sys, hf_shrink; hf_shrink.ShrinkError; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_loads():
    for package in (
        "architectures",
        "dataset_distillation",
        "distillation",
        "evaluation",
        "hub",
        "inputs",
        "pruning",
        "quantization",
    ):
        module = __import__(f"hf_shrink.{package}", fromlist=["__all__"])
        for name in module.__all__:
            assert getattr(module, name) is not None
    for name in hf_shrink.__all__:
        assert getattr(hf_shrink, name) is not None
    with pytest.raises(AttributeError):
        hf_shrink.no_such_name  # noqa: B018


def test_no_module_bears_the_name_of_a_public_function():
    public = set(hf_shrink.__all__)
    assert not [path for path in MODULES if path.stem in public]


def test_no_file_is_named_for_nothing_in_particular():
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_only_one_file_branches_on_library_versions():
    branching = [
        path for path in MODULES if "__version__.split" in path.read_text() or "version.parse" in path.read_text()
    ]
    assert [path.name for path in branching] == ["versions.py"]


def test_the_repository_address_is_written_alike_everywhere():
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    slug = address.removeprefix("https://github.com/")
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("notebooks/*.ipynb"),
        *ROOT.glob("model_cards/*.md"),
        *PACKAGE.rglob("*.jinja"),
    ]
    assert files
    for path in files:
        for line in path.read_text().splitlines():
            if "github.com/hf-shrink" in line or "colab.research.google.com/github" in line:
                assert slug in line, f"{path.name}: {line}"
