"""Run as a script in a fresh process: NNCF quantizes an ONNX graph for OpenVINO.

NNCF gives the process that imports it another logger class, prints tables and bars, counts its constants on from call
to call, and reports its use over the network unless NNCF_CI is set; and what crashes in the runtime takes its process
with it. None of it is to happen to a user's process. Arguments: the .onnx file, the .xml to write, a JSON file with
`Settings`, and a .npz with complete batches ("0/input_ids", …).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

DYNAMIC = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]  # where OpenVINO reads it as it loads the graph


class Settings(TypedDict):
    """What is asked for, as JSON.

    Args:
        ignore: Full names of the modules that stay in float.
        mode: Name in `nncf.CompressWeightsMode`; None quantizes activations too.
        arguments: For `nncf.compress_weights`.
        alpha: How much of the outliers in activations the weights take over, from 0 to 1.
        reduce_range: Whether weights take 7 bits.
        dynamic: Whether OpenVINO may round the activations of compressed weights as it runs.
    """

    ignore: list[str]
    mode: str | None
    arguments: dict[str, Any]
    alpha: float
    reduce_range: bool
    dynamic: bool


def quantize_graph(source: str, target: str, settings: str, rows: str) -> None:
    """Read a float graph and write a quantized one.

    Args:
        source: The .onnx file, its nodes named by `name_nodes`.
        target: The .xml file; its weights lie in the .bin beside it.
        settings: JSON of `Settings`.
        rows: The batches; may hold none.
    """
    import nncf
    import openvino

    nncf.set_log_level(40)  # errors; they end up in the message of the parent process
    asked: Settings = json.loads(Path(settings).read_text(encoding="utf-8"))
    graph = openvino.Core().read_model(source)
    name_outputs(graph, source)
    turn_weights(graph)
    scope = nncf.IgnoredScope(names=nodes_in(graph, asked["ignore"]))
    batches = _batches(rows)
    if asked["mode"] is None:
        made = _quantize(nncf, graph, batches, scope, asked)
    else:
        made = _compress(nncf, graph, batches, scope, asked)
    openvino.save_model(made, target, compress_to_fp16=False)


def name_outputs(graph: Any, source: str) -> None:
    """Give the nodes that make the outputs their own names back: OpenVINO calls them after the outputs.

    Args:
        graph: What OpenVINO read, changed in place.
        source: The .onnx file that it read.
    """
    import onnx

    nodes = onnx.load(source, load_external_data=False).graph.node
    names = {output: node.name for node in nodes for output in node.output}
    for result in graph.get_results():
        maker = result.input_value(0).get_node()
        if (own := names.get(maker.get_friendly_name())) is not None:
            maker.set_friendly_name(own)


def turn_weights(graph: Any) -> None:
    """Lay the weights of matrix products out as (outputs, inputs), in place.

    An exporter stores them the other way round. NNCF 3.4 fails at that in GPTQ, and in scale estimation it is silently
    wrong. A head that is tied to the embeddings reads their constant again, in place of a transposed one.

    Args:
        graph: What OpenVINO read.
    """
    from openvino import opset13

    turned: dict[str, Any] = {}
    for product in graph.get_ordered_ops():
        if product.get_type_name() != "MatMul" or product.get_attributes()["transpose_b"]:
            continue
        weight = product.input_value(1).get_node()
        name = weight.get_friendly_name()
        if weight.get_type_name() == "Transpose" and _is_matrix(weight.input_value(0).get_node()):
            turned[name] = weight.input_value(0).get_node()
        elif not _is_matrix(weight):
            continue
        elif name not in turned:
            turned[name] = opset13.constant(np.ascontiguousarray(weight.get_data().T))
            turned[name].set_friendly_name(name)
        first, transposed = product.input_value(0), product.get_attributes()["transpose_a"]
        other = opset13.matmul(first, turned[name], transposed, True)
        other.set_friendly_name(product.get_friendly_name())
        product.output(0).replace(other.output(0))


def nodes_in(graph: Any, modules: list[str]) -> list[str]:
    """The nodes of some modules.

    Args:
        graph: What OpenVINO read; it makes several nodes of one, named after it: "classifier/Gemm/WithoutBiases".
        modules: Full names.

    Returns:
        The names of their nodes.
    """
    names = [node.get_friendly_name() for node in graph.get_ops() if node.get_type_name() != "Constant"]
    return [name for name in names if name.partition("/")[0] in modules]


def _is_matrix(node: Any) -> bool:
    return node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 2


def _batches(rows: str) -> list[dict[str, NDArray[Any]]]:
    given = np.load(rows)
    batches: dict[str, dict[str, NDArray[Any]]] = {}
    for key in given.files:
        batch, name = key.split("/", 1)
        batches.setdefault(batch, {})[name] = given[key]
    return list(batches.values())


def _quantize(nncf: Any, graph: Any, batches: list[dict[str, NDArray[Any]]], scope: Any, asked: Settings) -> Any:
    return nncf.quantize(
        graph,
        nncf.Dataset(batches),
        subset_size=len(batches),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=scope,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE if asked["reduce_range"] else nncf.OverflowFix.FIRST_LAYER,
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=asked["alpha"]),
        ),
    )


def _compress(nncf: Any, graph: Any, batches: list[dict[str, NDArray[Any]]], scope: Any, asked: Settings) -> Any:
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters

    arguments: Mapping[str, Any] = asked["arguments"]
    if batches:
        arguments = {**arguments, "dataset": nncf.Dataset(batches), "subset_size": len(batches)}
    made = nncf.compress_weights(
        graph,
        mode=nncf.CompressWeightsMode[asked["mode"]],
        ignored_scope=scope,
        # Where rows do not divide into the groups asked for, smaller ones are taken, and 8 bits where none fits.
        advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST),
        **arguments,
    )
    if not asked["dynamic"]:
        made.set_rt_info("0", DYNAMIC)
    return made


if __name__ == "__main__":
    quantize_graph(*sys.argv[1:])
