"""Which of its layers a model needs least."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel

from hf_shrink.architectures.layers import find_layers
from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.calibration_rows import RowOptions, read_rows
from hf_shrink.inputs.models import load_model
from hf_shrink.pruning.layer_scores import LAYER_SCORES


def layer_importance(
    model: Any,
    dataset: Any,
    *,
    method: str | Callable[..., dict[str, list[float]]] = "block_influence",
    split: str | None = None,
    task: str | None = None,
    processing_class: Any = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    calibration_size: int | None = 256,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Find out how much a model needs each of its layers; `drop_layers` takes out those with the lowest scores.

    The scores are of layers left out one by one: of two that can stand in for each other both look dispensable. To
    drop many, drop some and score again. "block_influence" (ShortGPT, arXiv:2403.03853) takes one pass over the rows;
    "loss" takes one more than there are layers, and reads labels.

    Args:
        model: A transformers model of a known family, a folder or a Hub id; an instance is left as it is.
        dataset: A `Dataset`, or a path or Hub id; for "loss" with labels.
        method: Name in `LAYER_SCORES`, or a function like those there, whose rows have no labels.
        split: Of the dataset, where it has several.
        task: Name in `TASKS`; found from the model if None.
        processing_class: What prepares raw rows; loaded from where the model was if None and needed.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None and needed.
        data_collator: Makes a padded batch; None takes the one of the task. Padding does not count where the batch
            has an `attention_mask`.
        batch_size: Rows a batch.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's and the model's limit.
        calibration_size: Rows to draw; None takes all.
        seed: Of the rows' choice, and of a collator that masks at random.

    Returns:
        Name of a stack ("encoder", "decoder") to one score a layer, in their order; higher = kept longer.

    Raises:
        ShrinkError: If it is no transformers model, or the method lacks labels.
    """
    score = LAYER_SCORES.resolve(method)
    labelled = not callable(method) and LAYER_SCORES[method].facts["labelled"]
    loaded = load_model(model)
    if not isinstance(loaded, PreTrainedModel):
        raise ShrinkError(
            f"`model` must be a transformers model, got {type(loaded).__name__}. Give the model it was made from."
        )
    stacks = find_layers(loaded)
    options = RowOptions(
        split, task, processing_class, text_column, label_column, data_collator, batch_size, max_length, seed
    )
    rows = read_rows(loaded, model, dataset, options, labelled=labelled, size=calibration_size)
    return score(loaded, stacks, rows)
