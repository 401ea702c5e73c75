"""The proof that an artifact loads and answers as the model that it was made from."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.evaluation.sample_inputs import sample_inputs as sample_any_inputs
from hf_shrink.inputs.models import load_model
from hf_shrink.quantization.divergence import OUTPUTS, answers_of
from hf_shrink.quantization.fresh_process import fresh_answers
from hf_shrink.quantization.job import Job, Made
from hf_shrink.quantization.traced import sample_rows

ROWS, TOKENS = 32, 24
BROKEN = 0.5  # relative error: int8 has about 0.1 on random tokens, an answer that is not the model's 1 or more
FAR_OFF = 0.15  # relative error: MiniLM has 0.07 in 8 bits, a language model whose outliers spoil a range 0.2
RELOADED = {"onnx": 1e-4, "openvino": 1e-3, "transformers": 1e-2}  # of the largest output; bitsandbytes adds in bf16


def prove(job: Job, made: Made, method: str) -> dict[str, Any]:
    """Load an artifact in a fresh process, and compare its answers with the float model's.

    It shows that the artifact works: on the rows that it was calibrated with, where there are some, for beyond their
    ranges it need not; else on random tokens, which are unlike all that a model was trained on, and harder on it than
    text is. How good it is on the user's rows is for `compare` to say.

    Args:
        job: What was asked for; its folder is complete.
        made: What came of it.
        method: Name of the quantizer, for the messages.

    Returns:
        "inputs" and "rows", which and how many; "relative_error" of the outputs, root mean square, for a generator the
        larger one of long rows and of single tokens; "agreement", the share of equal decisions (labels, one a token in
        tagging, or ends of an answer), None where there is none to take; "reload_difference", between the fresh
        process and this one, as a share of the largest output.
    """
    inputs, groups = _asked(job)
    rows = list(chain.from_iterable(groups))
    names = OUTPUTS.get(job.task, ("logits",))
    fresh = fresh_answers(job.folder, rows, job.task, method)
    answers = [answer[name] for answer in fresh for name in names]
    expected = [output for row in rows for output in answers_of(job.model, row, job.task)]
    ends = [len(names) * end for end in accumulate(map(len, groups), initial=0)]
    error = max(check_answers(answers[i:j], expected[i:j], method) for i, j in pairwise(ends))
    if error > FAR_OFF:
        warnings.warn(
            f"After {method} the answers of {type(job.model).__name__} to {inputs} are off by {error:.0%}. Measure it "
            "on your rows: give quantize() an `evaluation_dataset` and `max_drop`, or choose another method.",
            stacklevel=4,
        )
    reference = load_model(job.folder) if made.model is None else made.model
    difference = check_reload(answers, _ask(reference, rows, names), runtime_of(job.folder), method)
    return {
        "inputs": inputs,
        "rows": len(rows),
        "relative_error": round(error, 6),
        "agreement": agreement(answers, expected, job.task),
        "reload_difference": round(difference, 8),
    }


def check_answers(answers: Sequence[Tensor], expected: Sequence[Tensor], method: str) -> float:
    """Hold answers to the float model's.

    Args:
        answers: The artifact's.
        expected: The float model's, of the same shapes.
        method: Name of the quantizer, for the message.

    Returns:
        The relative error, root mean square.

    Raises:
        ShrinkError: If an answer is not finite, or has little to do with the float model's.
    """
    difference = sum((a - e).square().sum().item() for a, e in zip(answers, expected, strict=True))
    error = float((difference / max(sum(e.square().sum().item() for e in expected), 1e-30)) ** 0.5)
    if not error <= BROKEN:  # NaN fails as well
        raise ShrinkError(
            f"`model` must answer as before after {method}, but its outputs are off by {error:.0%}. "
            "Check its weights for NaN and outliers, or leave it in float."
        )
    return error


def check_reload(answers: Sequence[Tensor], reference: Sequence[Tensor], runtime: str, method: str) -> float:
    """Hold what was loaded elsewhere to what was made here.

    Args:
        answers: From the fresh process.
        reference: From this one, of the same shapes.
        runtime: Name in `RELOADED`.
        method: Name of the quantizer, for the message.

    Returns:
        The largest difference, as a share of the largest output.

    Raises:
        ShrinkError: If it is above what the runtime may differ by.
    """
    largest = max(max(r.abs().max().item() for r in reference), 1e-30)
    difference = max((a - r).abs().max().item() for a, r in zip(answers, reference, strict=True)) / largest
    if not difference <= RELOADED[runtime]:
        raise ShrinkError(
            f"`model` must answer alike before and after it is loaded again, but after {method} its outputs differ by "
            f"{difference:.2%}. The files are not what was made: report this with the versions of `hf-shrink env`."
        )
    return difference


def agreement(answers: Sequence[Tensor], expected: Sequence[Tensor], task: str) -> float | None:
    """Share of equal decisions.

    Args:
        answers: The artifact's outputs.
        expected: The float model's, of the same shapes.
        task: Name in `OUTPUTS`.

    Returns:
        A share in [0, 1]; None where outputs are no decision, as in a regression or an embedding.
    """
    if task in ("regression", "feature_extraction"):
        return None
    equal = [_decide(a, task) == _decide(e, task) for a, e in zip(answers, expected, strict=True)]
    return round(torch.cat([same.float().flatten() for same in equal]).mean().item(), 6)


def runtime_of(folder: Path) -> str:
    """What runs an artifact.

    Args:
        folder: The artifact.

    Returns:
        "onnx", "openvino" or "transformers".
    """
    if any(folder.glob("*.onnx")):
        return "onnx"
    return "openvino" if any(folder.glob("*.xml")) else "transformers"


def _asked(job: Job) -> tuple[str, list[list[dict[str, Tensor]]]]:
    """What the inputs are, and groups of rows, each of which is to be answered well."""
    rows = list(islice(_single_rows(job.calibration), ROWS))
    inputs = "calibration rows" if rows else "random tokens" if job.model.main_input_name == "input_ids" else "noise"
    groups = [rows or _random_rows(job.model, TOKENS)]
    if job.task == "causal_lm":  # one token is what a generator computes most of the time, and has kernels of its own
        first = [{name: values[:, :1] for name, values in row.items()} for row in rows]
        groups.append(first or _random_rows(job.model, 1))
    return inputs, groups


def _single_rows(batches: Sequence[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Rows without their padding, of which a quantized model may say anything."""
    for batch in batches:
        mask = batch.get("attention_mask")
        for i in range(len(next(iter(batch.values())))):
            row = {name: values[i : i + 1] for name, values in batch.items()}
            if mask is not None:
                kept = mask[i] != 0
                row = {name: v[:, kept] if v.shape[1:] == kept.shape else v for name, v in row.items()}
            yield row


def _random_rows(model: PreTrainedModel, tokens: int) -> list[dict[str, Tensor]]:
    if model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
        return [sample_any_inputs(model)]  # the same at every call
    return [sample_rows(model, 1, tokens, seed=seed) for seed in range(ROWS)]


def _ask(model: Any, rows: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> list[Tensor]:
    with torch.no_grad():
        outputs = [model(**row) for row in rows]
    return [output[name].float() for output in outputs for name in names]


def _decide(output: Tensor, task: str) -> Tensor:
    return output > 0 if task == "multi_label_classification" else output.argmax(-1)
