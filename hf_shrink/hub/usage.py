"""How a model is loaded: the stock call of its task, as code that a reader can run."""

from hf_shrink.inputs.tasks import TASKS

TEXT, PAIR = 'tokenizer("Where is my money?"', 'tokenizer("Who wrote it?", "It was written by Ada."'
ENDINGS = {  # of a runtime's graphs, and how it loads one
    "onnxruntime": ("onnx", "session = onnxruntime.InferenceSession(graph)"),
    "openvino": ("xml", 'session = openvino.Core().compile_model(graph, "CPU")'),
}
NEEDED = {"bnb-": "bitsandbytes accelerate", "torchao-": "torchao"}  # beside transformers, by the method's beginning
PROCESSORS = {
    "image_classification": ("AutoImageProcessor", "processor", 'processor(Image.open("picture.png")'),
    "audio_classification": ("AutoFeatureExtractor", "extractor", "extractor(samples, sampling_rate=16_000"),
}


def is_onnx(method: str | None) -> bool:
    """Whether a method writes an ONNX graph.

    Args:
        method: Its name in the registry.

    Returns:
        True for "onnx-int8", "optimum-int8" and their like.
    """
    return method is not None and method.startswith(("onnx-", "optimum-"))


def is_openvino(method: str | None) -> bool:
    """Whether a method writes a graph of OpenVINO.

    Args:
        method: Its name in the registry.

    Returns:
        True for "openvino-int8" and its like.
    """
    return method is not None and method.startswith("openvino-")


def is_graph(method: str | None) -> bool:
    """Whether a method writes a graph, which can be run and not trained.

    Args:
        method: Its name in the registry.

    Returns:
        True for what runs in onnxruntime or OpenVINO.
    """
    return is_onnx(method) or is_openvino(method)


def loading_code(task: str, source: str, method: str | None, *, remote: bool = False) -> str:
    """Code that loads a model and calls it once.

    Args:
        task: Name in `TASKS`; for any other the headless model is loaded.
        source: Hub id, or a folder.
        method: How it was made; graphs load through Optimum.
        remote: Whether a modelling file lies beside the weights.

    Returns:
        Python that needs no hf_shrink.
    """
    auto_class = TASKS[task].auto_class if task in TASKS else "AutoModel"
    processor, variable, call = PROCESSORS.get(task, ("AutoTokenizer", "tokenizer", _text(task)))
    lines = _imports(auto_class, processor, method)
    if is_graph(method):
        auto_class = _graph_class(auto_class, method)
    lines += [
        "",
        f'source = "{source}"',
        f"{variable} = {processor}.from_pretrained(source)",
        f"model = {auto_class}.from_pretrained(source{', trust_remote_code=True' if remote else ''})",
        f'inputs = {call}, return_tensors="pt")',
        _answer(task, variable),
    ]
    return "\n".join(lines)


def runtime_of(method: str | None) -> str | None:
    """What runs a method's graph by itself.

    Args:
        method: Its name in the registry.

    Returns:
        "onnxruntime" or "openvino", as one imports it; None for what is no graph.
    """
    if is_openvino(method):
        return "openvino"
    return "onnxruntime" if is_onnx(method) else None


def session_code(source: str, is_folder: bool, runtime: str = "onnxruntime") -> str:
    """Code that loads a graph in its runtime alone.

    Args:
        source: Hub id, or a folder.
        is_folder: Whether `source` is a folder.
        runtime: What `runtime_of` found.

    Returns:
        Python.
    """
    folder = f'"{source}"' if is_folder else f'snapshot_download("{source}")'
    hub = [] if is_folder else ["from huggingface_hub import snapshot_download"]
    ending, load = ENDINGS[runtime]
    lines = [
        "from pathlib import Path",
        "",
        f"import {runtime}",
        *hub,
        "",
        f'graph = next(Path({folder}).glob("*.{ending}"))',
        load,
    ]
    return "\n".join(lines)


def _text(task: str) -> str:
    return PAIR if task == "question_answering" else TEXT


def _graph_class(auto_class: str, method: str | None) -> str:
    prefix = "OV" if is_openvino(method) else "ORT"
    name = "AutoModelForFeatureExtraction" if auto_class == "AutoModel" else auto_class
    return name.replace("Auto", prefix, 1)


def _imports(auto_class: str, processor: str, method: str | None) -> list[str]:
    image = ["from PIL import Image"] if processor == "AutoImageProcessor" else []
    if is_graph(method):
        package, needed = (
            ("optimum.intel", 'pip install "optimum-intel[openvino]"')
            if is_openvino(method)
            else ("optimum.onnxruntime", "pip install optimum-onnx")
        )
        lines = [
            f"from {package} import {_graph_class(auto_class, method)}  # {needed}",
            *image,
            f"from transformers import {processor}",
        ]
        return lines
    needed = next((f"  # pip install {what}" for kind, what in NEEDED.items() if (method or "").startswith(kind)), "")
    return [*image, f"from transformers import {', '.join(sorted((auto_class, processor)))}{needed}"]


def _answer(task: str, variable: str) -> str:
    if task in ("causal_lm", "seq2seq_lm"):
        return f"answer = {variable}.decode(model.generate(**inputs, max_new_tokens=32)[0], skip_special_tokens=True)"
    if task == "question_answering":
        return "start, end = (int(logits.argmax()) for logits in model(**inputs).to_tuple()[:2])"
    output = "last_hidden_state" if task not in TASKS or task == "feature_extraction" else "logits"
    return f"{output} = model(**inputs).{output}"
