"""Rows become model inputs: tokenised once, batched, padded."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, List, Value
from transformers import (
    BaseImageProcessor,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from hf_shrink.errors import ShrinkError
from hf_shrink.inputs.columns import TOKENIZED, find_columns, inner_feature
from hf_shrink.inputs.encoding import LABEL_ENCODERS, encode_text
from hf_shrink.inputs.tasks import check_task

MODEL_INPUTS = (*TOKENIZED, "attention_mask", "token_type_ids", "position_ids", "bbox", "pixel_mask")
TARGETS = ("labels", "start_positions", "end_positions", "decoder_input_ids", "decoder_attention_mask")
CLASSIFIERS = (
    "single_label_classification",
    "multi_label_classification",
    "token_classification",
    "image_classification",
)
UNLABELLED = ("masked_lm", "causal_lm", "feature_extraction")  # the text is the label, or there is none


def tokenize_rows(
    dataset: Dataset,
    processing_class: Any,
    *,
    task: str,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
) -> Dataset:
    """Turn rows into what a model takes.

    Args:
        dataset: Raw rows, or tokenised ones, which keep their tokens: never are `input_ids` tokenised again.
        processing_class: Tokenizer, processor or image processor; may be None for tokenised rows.
        task: Name in `TASKS`; it says what becomes of the label.
        text_column: The text's column, or two for pairs; found where it is None.
        label_column: The label's column; found where it is None.
        max_length: Tokens to cut a raw row to; None takes the tokenizer's own limit.

    Returns:
        The model's inputs and, where there is a label, "labels" (for question answering "start_positions" and
        "end_positions"), and nothing else. Images are prepared at the moment a row is read.

    Raises:
        ShrinkError: If a column is missing or ambiguous, or raw rows come without the fitting `processing_class`.
    """
    check_task(task)
    dataset = dataset.with_format(None)
    if set(TOKENIZED) & set(dataset.column_names):
        return _keep_inputs(dataset, processing_class, label_column, task)
    columns = find_columns(
        dataset, text_column=text_column, label_column=label_column, with_label=task not in UNLABELLED
    )
    if task == "audio_classification":
        raise ShrinkError(
            "`dataset` must hold `input_values` or `input_features` for audio classification, got raw rows. "
            "Run the feature extractor over them with dataset.map()."
        )
    dataset, label = _prepare_label(dataset, columns.label, task)
    if isinstance(dataset.features[columns.text[0]], Image):
        return _with_pixels(dataset, processing_class, columns.text[0], label)
    settings: dict[str, Any] = {
        "tokenizer": _tokenizer(processing_class),
        "text": columns.text,
        "max_length": max_length,
    }
    encode: Callable[..., Any] = encode_text
    if task in LABEL_ENCODERS and (label is not None or task == "causal_lm"):
        encode, settings["label"] = LABEL_ENCODERS[task], label
    kept = [] if encode is not encode_text else [label]
    return dataset.map(
        encode,
        batched=True,
        fn_kwargs=settings,
        remove_columns=[column for column in dataset.column_names if column not in kept],
        desc="Tokenizing",
    )


def row_batches(rows: Dataset, collator: Callable[[list[dict[str, Any]]], Any], batch_size: int = 32) -> Iterator[Any]:
    """Go through rows in order.

    Args:
        rows: Tokenised rows.
        collator: Makes one padded batch of a list of rows.
        batch_size: Rows a batch; the last one may be smaller.

    Yields:
        What the collator makes: usually a mapping of tensors with B rows.

    Raises:
        ShrinkError: If the batch size is below 1.
    """
    if not batch_size >= 1:
        raise ShrinkError(f"`batch_size` must be at least 1, got {batch_size}. The default is 32.")
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield collator([dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)])


def default_collator(processing_class: Any, task: str) -> Callable[[list[dict[str, Any]]], Any]:
    """The collator of transformers that fits a task.

    Args:
        processing_class: Tokenizer, processor or image processor; None where all rows have the same shape.
        task: Name in `TASKS`.

    Returns:
        A collator that pads to the longest row of a batch; it masks tokens at random for masked language models.

    Raises:
        ShrinkError: If the tokenizer has no padding token.
    """
    check_task(task)
    if task in ("image_classification", "audio_classification") or processing_class is None:
        return DefaultDataCollator()
    tokenizer = _tokenizer(processing_class)
    if tokenizer.pad_token is None:
        raise ShrinkError(
            "`processing_class` must have a padding token to make batches, got none. "
            "Set tokenizer.pad_token = tokenizer.eos_token."
        )
    if task == "masked_lm":
        return DataCollatorForLanguageModeling(tokenizer)
    if task in ("causal_lm", "seq2seq_lm"):  # the causal collator would hide every end of text that doubles as padding
        return DataCollatorForSeq2Seq(tokenizer)
    if task == "token_classification":
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)


def padding_right(processing_class: Any) -> Any:
    """Make a tokenizer pad on the right: padding on the left would move a decoder's positions.

    Args:
        processing_class: Tokenizer, processor or image processor, or None.

    Returns:
        The same, or a copy where it is a tokenizer that pads on the left.
    """
    if not isinstance(processing_class, PreTrainedTokenizerBase) or processing_class.padding_side == "right":
        return processing_class
    right = copy.deepcopy(processing_class)
    right.padding_side = "right"
    return right


def _tokenizer(processing_class: Any) -> PreTrainedTokenizerBase:
    tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ShrinkError(
            f"`processing_class` must be a tokenizer to read text, got {type(processing_class).__name__}. "
            "Give the model's own, from AutoTokenizer.from_pretrained()."
        )
    return tokenizer


def _keep_inputs(dataset: Dataset, processing_class: Any, label_column: str | None, task: str) -> Dataset:
    label = find_columns(dataset, label_column=label_column).label
    if task not in UNLABELLED or label_column is not None:
        dataset, _ = _prepare_label(dataset, label, task)
    known = set(MODEL_INPUTS)
    if isinstance(processing_class, (PreTrainedTokenizerBase, BaseImageProcessor)):
        known = set(processing_class.model_input_names)  # token_type_ids would break models that have none
    return dataset.select_columns([column for column in dataset.column_names if column in known | set(TARGETS)])


def _prepare_label(dataset: Dataset, label: str | None, task: str) -> tuple[Dataset, str | None]:
    """Call the label "labels", and give it the type that the task's loss takes."""
    if label is None:
        return dataset, None
    if label != "labels":
        if "labels" in dataset.column_names:
            dataset = dataset.remove_columns("labels")
        dataset = dataset.rename_column(label, "labels")
    feature = dataset.features["labels"]
    if task in CLASSIFIERS and getattr(inner_feature(feature), "dtype", None) in ("string", "large_string"):
        raise ShrinkError(
            f"`label_column` must hold class ids, but {label!r} holds names. Number them as the model does with "
            "align_labels(), or in alphabetical order with dataset.class_encode_column()."
        )
    if task == "regression":
        dataset = dataset.cast_column("labels", Value("float32"))
    if task == "multi_label_classification" and isinstance(inner_feature(feature), ClassLabel):
        features = Features({**dataset.features, "labels": List(Value("float32"))})
        count = {"count": inner_feature(feature).num_classes}
        return dataset.map(_multi_hot, input_columns="labels", fn_kwargs=count, features=features), "labels"
    if task == "multi_label_classification":
        dataset = dataset.cast_column("labels", List(Value("float32")))
    return dataset, "labels"


def _multi_hot(ids: Sequence[int], count: int) -> dict[str, list[float]]:
    return {"labels": [float(i in ids) for i in range(count)]}


def _with_pixels(dataset: Dataset, processing_class: Any, image: str, label: str | None) -> Dataset:
    processor = processing_class.image_processor if isinstance(processing_class, ProcessorMixin) else processing_class
    if not isinstance(processor, BaseImageProcessor):
        raise ShrinkError(
            f"`processing_class` must be an image processor to read images, got {type(processing_class).__name__}. "
            "Give the model's own, from AutoImageProcessor.from_pretrained()."
        )
    kept = [image] if label is None else [image, label]
    return dataset.select_columns(kept).with_transform(partial(_pixels, processor=processor, image=image))


def _pixels(batch: Mapping[str, list[Any]], processor: BaseImageProcessor, image: str) -> dict[str, Any]:
    labels = {column: values for column, values in batch.items() if column != image}
    if image not in batch:
        return labels
    pictures = [picture.convert("RGB") for picture in batch[image]]
    return {"pixel_values": processor(pictures, return_tensors="pt")["pixel_values"], **labels}
