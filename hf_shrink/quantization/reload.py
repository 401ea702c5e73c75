"""Run as a script in a fresh process: an artifact answers rows through its runtime's stock class, without hf_shrink.

A graph of ONNX is run by plain onnxruntime; where Optimum is there, its class for such folders must answer alike.

Its arguments are the artifact's folder, a .npz with the inputs of each row ("0/input_ids", …), the .npz to write the
answers to ("0/logits", …), and the class of transformers for the task, such as "AutoModelForCausalLM".
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, NDArray[Any]]
Answer = Callable[[Row], Row]
ALIKE = 1e-4  # of the largest output


def answer_rows(folder: str, rows: str, answers: str, auto_class: str) -> None:
    """Load the folder and answer.

    Args:
        folder: The artifact.
        rows: File with the inputs.
        answers: File to write.
        auto_class: Such as "AutoModelForSequenceClassification"; Optimum's class is named after it.
    """
    place = Path(folder)
    if any(place.glob("*.onnx")):
        answer = _onnx(place, auto_class)
    elif any(place.glob("*.xml")):
        answer = _openvino(place)
    else:
        answer = _transformers(place, auto_class)
    given = np.load(rows)
    by_row: dict[str, dict[str, NDArray[Any]]] = {}
    for key in given.files:
        row, name = key.split("/")
        by_row.setdefault(row, {})[name] = given[key]
    results = {f"{row}/{name}": value for row, feed in by_row.items() for name, value in answer(feed).items()}
    np.savez(answers, **results)  # type: ignore[arg-type]


def _onnx(folder: Path, auto_class: str) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    graph = next(folder.glob("*.onnx"))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = {node.name: node.shape for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    stock = _optimum(folder, auto_class, inputs)

    def answer(row: Row) -> Row:
        answers = dict(zip(outputs, session.run(None, _feed(inputs, row)), strict=True))
        if stock is not None:
            _hold(stock(row), answers)
        return answers

    return answer


def _optimum(folder: Path, auto_class: str, inputs: Mapping[str, Any]) -> Answer | None:
    """Optimum's class for such folders; None where it is not installed, or does not serve them."""
    try:
        import optimum.onnxruntime
        import torch
    except ImportError:
        return None
    name = "ORTModelForFeatureExtraction" if auto_class == "AutoModel" else auto_class.replace("Auto", "ORT", 1)
    model = getattr(optimum.onnxruntime, name).from_pretrained(folder)
    past = inputs.get("past_key_values.0.key")
    # optimum-onnx 0.1 works out the size of a head, and takes no word of the config for it but of some families.
    if past is not None and vars(model)["embed_size_per_head"] != past[3]:
        return None

    def answer(row: Row) -> Row:
        outputs = model(**{name: torch.from_numpy(values) for name, values in row.items()})
        return {name: v.numpy() for name, v in outputs.items() if isinstance(v, torch.Tensor)}

    return answer


def _hold(found: Row, expected: Row) -> None:
    common = [name for name in expected if name in found]
    largest = np.max([np.abs(expected[name]).max() for name in common])
    difference = np.max([np.abs(found[name] - expected[name]).max() for name in common])  # NaN stays NaN
    if not difference <= ALIKE * largest:
        raise ValueError(f"Optimum's class answers otherwise than onnxruntime: {common} differ by {difference:.2g}")


def _openvino(folder: Path) -> Answer:
    import openvino

    # bfloat16, which some CPUs take by themselves, changes answers
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(next(folder.glob("*.xml")), "CPU", exact)
    inputs = {
        port.any_name: [d.get_length() if d.is_static else None for d in port.partial_shape]
        for port in compiled.inputs
    }
    outputs = [port.any_name for port in compiled.outputs]

    def answer(row: Row) -> Row:
        results = compiled(_feed(inputs, row))
        return {name: np.array(results[i]) for i, name in enumerate(outputs)}

    return answer


def _transformers(folder: Path, auto_class: str) -> Answer:
    import torch
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(folder).eval()

    def answer(row: Row) -> Row:
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(values) for name, values in row.items()})
        return {name: v.float().numpy() for name, v in outputs.items() if isinstance(v, torch.Tensor)}

    return answer


def _feed(inputs: Mapping[str, Any], row: Row) -> dict[str, NDArray[Any]]:
    """What a graph declares; token types default to zero, positions to those beside padding, the past to none."""
    rows, tokens = next(iter(row.values())).shape[:2]
    mask = row.get("attention_mask", np.ones((rows, tokens), np.int64))
    optional = {
        "token_type_ids": np.zeros((rows, tokens), np.int64),
        "position_ids": np.maximum(np.cumsum(mask, axis=-1) - 1, 0),
    }
    feed = {name: row[name] if name in row else optional.get(name) for name in inputs}
    for name, shape in inputs.items():
        if feed[name] is None:
            sizes = [size if isinstance(size, int) else 0 for size in shape[1:]]
            feed[name] = np.zeros([rows, *sizes], np.float32)
    return feed  # type: ignore[return-value]


if __name__ == "__main__":
    sys.modules["hf_shrink"] = None  # type: ignore[assignment]  # importing it would fail, as where it is not installed
    answer_rows(*sys.argv[1:])
