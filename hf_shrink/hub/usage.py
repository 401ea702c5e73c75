"""How a model is loaded: the stock call of its task, as code that a reader can run."""

from hf_shrink.inputs.tasks import TASKS

TEXT, PAIR = 'tokenizer("Where is my money?"', 'tokenizer("Who wrote it?", "It was written by Ada."'
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


def loading_code(task: str, source: str, method: str | None, *, remote: bool = False) -> str:
    """Code that loads a model and calls it once.

    Args:
        task: Name in `TASKS`; for any other the headless model is loaded.
        source: Hub id, or a folder.
        method: How it was made; ONNX methods load through Optimum.
        remote: Whether a modelling file lies beside the weights.

    Returns:
        Python that needs no hf_shrink.
    """
    auto_class = TASKS[task].auto_class if task in TASKS else "AutoModel"
    processor, variable, call = PROCESSORS.get(task, ("AutoTokenizer", "tokenizer", _text(task)))
    lines = _imports(auto_class, processor, method)
    if is_onnx(method):
        auto_class = _onnx_class(auto_class)
    lines += [
        "",
        f'source = "{source}"',
        f"{variable} = {processor}.from_pretrained(source)",
        f"model = {auto_class}.from_pretrained(source{', trust_remote_code=True' if remote else ''})",
        f'inputs = {call}, return_tensors="pt")',
        _answer(task, variable),
    ]
    return "\n".join(lines)


def session_code(source: str, is_folder: bool) -> str:
    """Code that runs an ONNX graph with onnxruntime alone.

    Args:
        source: Hub id, or a folder.
        is_folder: Whether `source` is a folder.

    Returns:
        Python.
    """
    folder = f'"{source}"' if is_folder else f'snapshot_download("{source}")'
    hub = [] if is_folder else ["from huggingface_hub import snapshot_download"]
    lines = [
        "from pathlib import Path",
        "",
        "import onnxruntime",
        *hub,
        "",
        f'graph = next(Path({folder}).glob("*.onnx"))',
        "session = onnxruntime.InferenceSession(graph)",
    ]
    return "\n".join(lines)


def _text(task: str) -> str:
    return PAIR if task == "question_answering" else TEXT


def _onnx_class(auto_class: str) -> str:
    return "ORTModelForFeatureExtraction" if auto_class == "AutoModel" else auto_class.replace("Auto", "ORT", 1)


def _imports(auto_class: str, processor: str, method: str | None) -> list[str]:
    image = ["from PIL import Image"] if processor == "AutoImageProcessor" else []
    if is_onnx(method):
        lines = [
            f"from optimum.onnxruntime import {_onnx_class(auto_class)}  # pip install optimum-onnx",
            *image,
            f"from transformers import {processor}",
        ]
        return lines
    needed = "  # pip install bitsandbytes accelerate" if (method or "").startswith("bnb-") else ""
    return [*image, f"from transformers import {', '.join(sorted((auto_class, processor)))}{needed}"]


def _answer(task: str, variable: str) -> str:
    if task in ("causal_lm", "seq2seq_lm"):
        return f"answer = {variable}.decode(model.generate(**inputs, max_new_tokens=32)[0], skip_special_tokens=True)"
    if task == "question_answering":
        return "start, end = (int(logits.argmax()) for logits in model(**inputs).to_tuple()[:2])"
    output = "last_hidden_state" if task not in TASKS or task == "feature_extraction" else "logits"
    return f"{output} = model(**inputs).{output}"
