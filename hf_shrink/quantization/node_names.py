"""The nodes of an exported graph, named after the modules that they come from."""

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of where in the model a node was traced
WRAPPER = "model"  # the attribute that holds the model in what is exported


def name_nodes(graph: Any) -> None:
    """Name every node "<module>/<operator>" in place, and remove the exporter's notes.

    The notes name folders of this machine, and differ from one to the next. What a runtime's tool is told to leave in
    float it knows by these names.

    Args:
        graph: An `onnx.ModelProto` as `torch.onnx.export` wrote it.
    """
    seen: Counter[str] = Counter()
    for node in graph.graph.node:
        name = f"{_module(node)}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
    for part in _parts(graph):
        del part.metadata_props[:]
        part.doc_string = ""


def module_of(node_name: str) -> str:
    """The module that a node comes from.

    Args:
        node_name: What `name_nodes` gave it.

    Returns:
        Its full name; empty for what belongs to none.
    """
    return node_name.rpartition("/")[0]


def nodes_of(graph: Any, modules: Collection[str]) -> list[str]:
    """The nodes of some modules.

    Args:
        graph: An `onnx.ModelProto` with named nodes.
        modules: Full names.

    Returns:
        The names of their nodes.
    """
    return [node.name for node in graph.graph.node if module_of(node.name) in modules]


def _module(node: Any) -> str:
    scopes = next((note.value for note in node.metadata_props if note.key == SCOPES), None)
    if scopes is None:
        return ""
    *modules, _ = ast.literal_eval(scopes)  # the last is the operator
    within = [name for name in modules if name.startswith(f"{WRAPPER}.")]
    return within[-1].removeprefix(f"{WRAPPER}.") if within else ""


def _parts(graph: Any) -> Iterator[Any]:
    yield graph
    yield graph.graph
    for field in ("node", "input", "output", "value_info", "initializer"):
        yield from getattr(graph.graph, field)
