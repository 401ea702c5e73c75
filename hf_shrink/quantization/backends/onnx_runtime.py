"""Dynamic int8 for the CPU through ONNX Runtime."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError, require
from hf_shrink.quantization.backends import QUANTIZERS
from hf_shrink.quantization.embedding_rows import quantize_embedding_rows

EXPORTED_TASKS = ("single_label_classification", "multi_label_classification", "regression", "token_classification")
TOLERANCE = 1e-3  # largest logit difference of float graph and model; fp32 kernels differ by about 1e-5
SHAPES = ((1, 7), (3, 21))  # rows and tokens; neither is the sample's own shape


@QUANTIZERS.add(
    "onnx-int8", paper="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html", extra="onnx"
)
def onnx_int8(model: PreTrainedModel, folder: Path, *, task: str) -> None:
    """Quantize weights to int8 and activations on the fly, for ONNX Runtime on the CPU.

    Weights of matrix products get one scale a column, embeddings one a row; both are symmetric. The head stays in
    float: it is small, and it decides.

    Args:
        model: A text encoder with a classification head, in any float dtype; it is exported in fp32.
        folder: Where `model.onnx` goes.
        task: Name in `TASKS`.

    Raises:
        ShrinkError: If the task has no export yet, or the exported graph answers otherwise than the model.
    """
    for library in ("onnxscript", "onnxruntime"):
        require(library, extra="onnx")
    if task not in EXPORTED_TASKS:
        raise ShrinkError(
            f"`task` must be one of {list(EXPORTED_TASKS)} for onnx-int8, got {task!r}. Others cannot be exported yet."
        )
    graph = folder / "model.onnx"
    float_model = _float_copy(model)
    _export(float_model, graph)
    _check_shapes(float_model, graph)
    _quantize(graph)


def _float_copy(model: PreTrainedModel) -> PreTrainedModel:
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.float().eval()


class _Logits(nn.Module):
    """Only the logits, under fixed input names: an exported graph has no keyword arguments."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits


def _sample(model: PreTrainedModel, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.config.vocab_size)
    ids = torch.randint(vocabulary, (rows, tokens), generator=generator)
    if model.config.pad_token_id is not None:  # some families number positions by what is not padding
        ids[ids == model.config.pad_token_id] = (model.config.pad_token_id + 1) % vocabulary
    mask = torch.ones_like(ids)
    mask[-1, tokens // 2 + 1 :] = 0
    sample = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:  # a field of BERT's kin only
        sample["token_type_ids"] = torch.zeros_like(ids)
    return sample


def _export(model: PreTrainedModel, graph: Path) -> None:
    sample = _sample(model, 2, 16)  # a sample of one row would freeze the batch at 1, whatever is said to be dynamic
    axes = {0: "batch_size", 1: "sequence_length"}
    with _quiet():
        program = torch.onnx.export(
            _Logits(model),
            (),
            kwargs=sample,
            dynamo=True,
            dynamic_shapes={name: axes for name in sample},
            input_names=list(sample),
            output_names=["logits"],
            verbose=False,
        )
        if program is None:
            raise ShrinkError(f"`model` must be exportable, but {type(model).__name__} is not. Please report it.")
        program.save(str(graph), external_data=False)


def _check_shapes(model: PreTrainedModel, graph: Path) -> None:
    session = require("onnxruntime", extra="onnx").InferenceSession(graph, providers=["CPUExecutionProvider"])
    for rows, tokens in SHAPES:
        sample = _sample(model, rows, tokens)
        with torch.no_grad():
            expected = _Logits(model)(**sample)
        answer = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in sample.items()})[0])
        error = (answer - expected).abs().max().item() if answer.shape == expected.shape else float("inf")
        if not error <= TOLERANCE:
            raise ShrinkError(
                f"`model` must answer alike when exported, but at {rows} × {tokens} tokens the graph's logits are off "
                f"by {error:.2g}. Please report the architecture, {type(model).__name__}."
            )


def _quantize(graph: Path) -> None:
    quantization = require("onnxruntime.quantization", extra="onnx")
    quantize_embedding_rows(graph)
    with _quiet():
        quantization.quantize_dynamic(
            graph,
            graph,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # Signed: unsigned weights took 1.6 times as long on a CPU with VNNI.
            weight_type=quantization.QuantType.QInt8,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on opset and shape inference, which users can do nothing about."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", None)
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
