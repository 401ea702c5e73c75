"""8 and 4 bits for the CPU through OpenVINO, in folders in the layout of Optimum Intel."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_shrink.errors import ShrinkError, require
from hf_shrink.inputs.graph_feed import complete_feed
from hf_shrink.inputs.openvino import GRAPH, WEIGHT_TYPES, declared_inputs
from hf_shrink.quantization import nncf_process
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.float_graph import float_graph_of
from hf_shrink.quantization.formats import Format
from hf_shrink.quantization.fresh_process import QUIET, ending
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.nncf_process import Settings
from hf_shrink.quantization.traced import OUTPUTS

COMPRESSION = "https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html"
GROUP_SIZES = (32, 64, 128, 256)
MOSTLY_FLOAT = 0.2  # share of the weights; norms, biases and scales of MiniLM are 0.5 %
SMOOTH = 0.95  # NNCF's own
FACTS: dict[str, Any] = {
    "extra": "openvino",
    "libraries": ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"),
    "stages": 2,
    "tasks": tuple(OUTPUTS),
}


@QUANTIZERS.add(
    "openvino-int8",
    paper=COMPRESSION,
    format=Format(bits=8, group_size=None, symmetric=False, embedding_bits=8, activations=None, scale_bits=16),
    calibrated=False,
    **FACTS,
)
def openvino_int8(job: Job, *, symmetric: bool = False, dynamic: bool = True) -> Made:
    """Weights and embeddings in int8, one scale an output, for OpenVINO on the CPU.

    Args:
        job: A model with an export; its folder gets `openvino_model.xml` and `.bin`.
        symmetric: Whether zero is the middle level, which saves the zero points.
        dynamic: Whether OpenVINO may round activations to 8 bits as it runs, 32 of a row at a time. It does so on CPUs
            with VNNI, where that makes products of integers out of those in float; False keeps activations in float
            everywhere, and takes about as long as the float model.

    Returns:
        The options, and the share of the weights that stayed in float.
    """
    _check_flags(symmetric=symmetric, dynamic=dynamic)
    options = {"symmetric": symmetric, "dynamic": dynamic}
    mode = "INT8_SYM" if symmetric else "INT8_ASYM"
    return _make(job, "openvino-int8", options, _settings(job, mode=mode, dynamic=dynamic))


@QUANTIZERS.add(
    "openvino-int8-static",
    paper="arXiv:1712.05877",
    format=Format(bits=8, group_size=None, symmetric=True, embedding_bits=8, activations="static"),
    calibrated=True,
    **FACTS,
)
def openvino_int8_static(job: Job, *, smooth_alpha: float = SMOOTH, reduce_range: bool = False) -> Made:
    """Weights, embeddings and activations in int8 over ranges that calibration rows gave (Jacob et al., 2017).

    NNCF moves outliers of the activations into the weights first (Xiao et al., 2023), and mends the biases afterwards.

    Args:
        job: A model with an export, and rows; its folder gets `openvino_model.xml` and `.bin`.
        smooth_alpha: How much of the outliers the weights take over, in [0, 1].
        reduce_range: Whether weights take 7 bits. CPUs without VNNI add two 8-bit products in 16 bits, which can
            overflow, silently; with 7 bits they cannot. It costs about what the overflow costs a MiniLM.

    Returns:
        The options, and the share of the weights that stayed in float.

    Raises:
        ShrinkError: If `smooth_alpha` is not a share.
    """
    _check_flags(reduce_range=reduce_range)
    if isinstance(smooth_alpha, bool) or not 0 <= smooth_alpha <= 1:
        raise ShrinkError(f"`smooth_alpha` must be in [0, 1], got {smooth_alpha}. NNCF's own is {SMOOTH}.")
    options = {"smooth_alpha": smooth_alpha, "reduce_range": reduce_range}
    settings = _settings(job, alpha=smooth_alpha, reduce_range=reduce_range)
    return _make(job, "openvino-int8-static", options, settings)


@QUANTIZERS.add(
    "openvino-int4",
    paper=COMPRESSION,
    format=Format(bits=4, group_size=32, symmetric=False, embedding_bits=8, activations=None, scale_bits=16),
    calibrated=True,
    rows_optional=True,
    **FACTS,
)
def openvino_int4(
    job: Job,
    *,
    group_size: int = 32,
    symmetric: bool = False,
    ratio: float = 1.0,
    all_layers: bool = False,
    gptq: bool = True,
    dynamic: bool = True,
) -> Made:
    """Weights in 4 bits, embeddings and the last product in 8, for OpenVINO on the CPU.

    Without rows each weight goes to the nearest level. With rows each takes up what the rounding of those before it
    did to the answers (GPTQ, Frantar et al., 2022), which takes longer and keeps clearly more.

    Args:
        job: A model with an export; its folder gets `openvino_model.xml` and `.bin`.
        group_size: Weights of a row that share a scale: 32, 64, 128 or 256; fewer where a row does not divide by it,
            and where it does not divide by 32 the layer gets 8 bits.
        symmetric: Whether zero is the middle level, which saves the zero points.
        ratio: Share of the weights in 4 bits, in (0, 1]; the most sensitive others get 8.
        all_layers: Whether embeddings and the last product get 4 bits as well.
        gptq: Whether rows, where there are some, are used for GPTQ; otherwise they serve `ratio` alone.
        dynamic: As in "openvino-int8".

    Returns:
        The options, and the share of the weights that stayed in float.

    Raises:
        ShrinkError: If an option is out of range.
    """
    _check_flags(symmetric=symmetric, all_layers=all_layers, gptq=gptq, dynamic=dynamic)
    if isinstance(group_size, bool) or group_size not in GROUP_SIZES:
        raise ShrinkError(f"`group_size` must be one of {list(GROUP_SIZES)}, got {group_size!r}. 32 keeps the most.")
    if isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise ShrinkError(f"`ratio` must be in (0, 1], got {ratio}. 1.0 gives every layer 4 bits.")
    chosen = {"group_size": group_size, "ratio": float(ratio), "all_layers": all_layers}
    corrected = gptq and bool(job.calibration)
    options = {**chosen, "symmetric": symmetric, "gptq": corrected, "dynamic": dynamic}
    arguments = {**chosen, "gptq": True} if corrected else chosen
    mode = "INT4_SYM" if symmetric else "INT4_ASYM"
    return _make(job, "openvino-int4", options, _settings(job, mode=mode, arguments=arguments, dynamic=dynamic))


def _check_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ShrinkError(f"`{name}` must be True or False, got {value!r}. Leave it out for the default.")


def _settings(job: Job, **chosen: Any) -> Settings:
    plain: Settings = {
        "ignore": list(job.ignore),
        "mode": None,
        "arguments": {},
        "alpha": SMOOTH,
        "reduce_range": False,
        "dynamic": True,
    }
    return {**plain, **chosen}  # type: ignore[typeddict-item]


def _make(job: Job, method: str, options: Mapping[str, Any], settings: Settings) -> Made:
    job.step("export")
    graph = float_graph_of(job)
    job.step("quantize")
    _run(job, method, graph, settings)
    share = _float_share(job.folder / GRAPH)
    if share > MOSTLY_FLOAT:
        warnings.warn(
            f"{share:.0%} of the weights of {type(job.model).__name__} stay in float: {method} packs products, "
            "convolutions and embeddings, and most of them lie elsewhere or are ignored.",
            stacklevel=3,
        )
    return Made({"options": dict(options), "float_share": round(share, 4)})


def _run(job: Job, method: str, graph: Path, settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        asked, rows = Path(scratch) / "settings.json", Path(scratch) / "rows.npz"
        asked.write_text(json.dumps(settings), encoding="utf-8")
        np.savez(rows, **_feeds(job, graph))  # type: ignore[arg-type]
        done = subprocess.run(
            # -P: the script's own folder stays off the path
            [sys.executable, "-P", nncf_process.__file__, str(graph), str(job.folder / GRAPH), str(asked), str(rows)],
            env={**os.environ, **QUIET, "NNCF_CI": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise ShrinkError(
            f"`model` must be one that NNCF can quantize by {method}, but its process {ending(done)}. "
            "Choose another method, or report this with the versions of `hf-shrink env`."
        )


def _feeds(job: Job, graph: Path) -> dict[str, NDArray[Any]]:
    """All that the graph takes for each batch, a language model's empty past among it."""
    openvino = require("openvino", extra="openvino")
    declared = declared_inputs(openvino.Core().read_model(graph))
    feeds: dict[str, NDArray[Any]] = {}
    for i, batch in enumerate(job.calibration):
        complete = complete_feed(batch, declared)
        feeds |= {f"{i}/{name}": np.asarray(complete[name], dtype=kind.dtype) for name, kind in declared.items()}
    return feeds


def _float_share(file: Path) -> float:
    openvino = require("openvino", extra="openvino")
    counts = {"float": 0, "integer": 0}
    for node in openvino.Core().read_model(file).get_ops():
        kind = node.get_output_element_type(0).get_type_name() if node.get_type_name() == "Constant" else None
        if kind in WEIGHT_TYPES:  # others are indices and masks
            counts["float" if "float" in WEIGHT_TYPES[kind] else "integer"] += int(np.prod(node.get_output_shape(0)))
    return counts["float"] / max(sum(counts.values()), 1)
