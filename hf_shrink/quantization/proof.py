"""The proof that an artifact loads and answers as the model that it was made from."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_shrink.errors import ShrinkError
from hf_shrink.quantization.float_graph import OUTPUTS, run_float, sample_inputs

ROWS, TOKENS = 32, 24
BROKEN = 0.5  # relative error: int8 has about 0.1 on random tokens, an answer that is not the model's 1 or more


def prove(loaded: Any, model: PreTrainedModel, task: str, method: str) -> dict[str, Any]:
    """Compare what was loaded from disk with its float model, on rows of random tokens.

    It shows that the artifact works. Random tokens are unlike all that a model was trained on, and harder on it than
    text is: how good it is on the user's rows is for `compare` to say.

    Args:
        loaded: What the artifact's `load` gave.
        model: The float model, as `to_float` gives it.
        task: Name in `OUTPUTS`.
        method: Name of the quantizer, for the messages.

    Returns:
        "inputs" and "rows", how many; "relative_error" of the outputs, root mean square; "agreement", the share of
        equal decisions (labels, one a token in tagging, or ends of an answer), None for a regression.

    Raises:
        ShrinkError: If an answer is not finite, or has little to do with the float model's.
    """
    expected: list[Tensor] = []
    answers: list[Tensor] = []
    for seed in range(ROWS):
        row = sample_inputs(model, 1, TOKENS, seed=seed)
        output = loaded(**row)
        expected += run_float(model, row, task)
        answers += [output[name] for name in OUTPUTS[task]]
    error = _relative_error(answers, expected)
    if not error <= BROKEN:  # NaN fails as well
        raise ShrinkError(
            f"`model` must answer as before after {method}, but its outputs are off by {error:.0%}. "
            "Check its weights for NaN and outliers, or leave it in float."
        )
    agreement = None if task == "regression" else _agreement(answers, expected, task)
    return {"inputs": "random tokens", "rows": ROWS, "relative_error": round(error, 6), "agreement": agreement}


def _relative_error(answers: list[Tensor], expected: list[Tensor]) -> float:
    difference = sum((a - e).square().sum().item() for a, e in zip(answers, expected, strict=True))
    return float((difference / max(sum(e.square().sum().item() for e in expected), 1e-30)) ** 0.5)


def _agreement(answers: list[Tensor], expected: list[Tensor], task: str) -> float:
    equal = [_decide(a, task) == _decide(e, task) for a, e in zip(answers, expected, strict=True)]
    return round(torch.cat([same.float().flatten() for same in equal]).mean().item(), 6)


def _decide(output: Tensor, task: str) -> Tensor:
    return output > 0 if task == "multi_label_classification" else output.argmax(-1)
